"""The options of `simulate`, and what their texts become. A command with many options stays readable that way.

Promises: an option without effect is refused, and so is a file that cannot be used, with what to do.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from signalkeep.errors import CallerError
from signalkeep.simulate.faults import kinds_of
from signalkeep.simulate.track import Track
from signalkeep.simulate.track_files import read_track

RATE: Final = 10.0


def moment(text: str) -> datetime:
    """A time in ISO 8601; UTC where it has no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no time; write it like 2026-05-01T08:00:00Z") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


Devices: TypeAlias = Annotated[int, typer.Option("--devices", min=1, help="virtual devices")]
Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--rate",
        help=f"records per second, of the whole fleet; default: {RATE:g}, or the track's own times",
        show_default=False,
    ),
]
Duration: TypeAlias = Annotated[float, typer.Option("--duration", min=0, help="seconds; 0: until stopped")]
Protocol: TypeAlias = Annotated[str, typer.Option("--protocol", help="teltonika or json")]
Oracle: TypeAlias = Annotated[
    Path | None,
    typer.Option("--oracle", help="append what devices were told is safe here, and what they sent to FILE.sent"),
]
Host: TypeAlias = Annotated[str, typer.Option("--host", help="gateway to send to")]
Port: TypeAlias = Annotated[int | None, typer.Option("--port", help="default: the protocol's own")]
Transport: TypeAlias = Annotated[str, typer.Option("--transport", help="tcp, or udp for teltonika")]
Tls: TypeAlias = Annotated[bool, typer.Option("--tls", help="encrypt, and check the gateway's certificate")]
TlsCa: TypeAlias = Annotated[
    Path | None,
    typer.Option("--tls-ca", help="PEM file to trust instead of the system's certificates", show_default=False),
]
TlsInsecure: TypeAlias = Annotated[bool, typer.Option("--tls-insecure", help="encrypt, and check nothing")]
Scenario: TypeAlias = Annotated[str, typer.Option("--scenario", help="who drives: mixed, city, delivery or long-haul")]
TrackFile: TypeAlias = Annotated[
    Path | None, typer.Option("--track", help="drive along this GPX or CSV file, in loops", show_default=False)
]
SpeedFactor: TypeAlias = Annotated[float, typer.Option("--speed-factor", help="how much faster than the track")]
Gaps: TypeAlias = Annotated[bool, typer.Option("--gaps/--no-gaps", help="times without network or satellites")]
Drift: TypeAlias = Annotated[bool, typer.Option("--drift/--no-drift", help="clocks that are not quite right")]
WrongClocks: TypeAlias = Annotated[
    float, typer.Option("--wrong-clocks", help="share of units whose clock is behind by hours, or by 1024 weeks")
]
Faults: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--faults", metavar="KIND[,KIND...]", help="plant faults of these kinds, or of all", show_default=False
    ),
]
FaultRate: TypeAlias = Annotated[
    float | None,
    typer.Option("--fault-rate", help="faults in each unit, on average; default: 1", show_default=False),
]
TruthFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--truth", help="write here what was planted where, one JSON line each", show_default=False),
]
Start: TypeAlias = Annotated[
    datetime | None,
    typer.Option("--start", parser=moment, metavar="TIME", help="of the first record; default: now"),
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", help="decides roads, drives, packet sizes and cuts")]
FirstNumber: TypeAlias = Annotated[
    int,
    typer.Option("--first-number", help="15 digits; device numbers count up from here, with check digit"),
]
CutRate: TypeAlias = Annotated[
    float, typer.Option("--cut-rate", help="share of packets after which the device cuts the connection")
]
Grace: TypeAlias = Annotated[float, typer.Option("--grace", min=0, help="seconds to drain at the end")]


def track_of(path: Path | None, speed_factor: float) -> Track | None:
    """The track to drive along."""
    if path is None:
        if speed_factor != 1:
            raise CallerError("--speed-factor without --track has no effect", hint="Give a track, or leave it out.")
        return None
    return read_track(path)


def rate_of(track: Track | None, speed_factor: float, devices: int) -> float:
    """Records of the whole fleet per second where nobody says: on a track, as many as it has."""
    if track is None:
        return RATE
    return devices * len(track.times_s) / track.period_s * speed_factor


def faults_of(
    faults: str | None, per_unit: float | None, truth: Path | None, oracle: Path | None
) -> tuple[tuple[str, ...], float]:
    """The kinds to plant, and how many of them in each unit."""
    if faults is None:
        if per_unit is not None or truth is not None:
            raise CallerError("--fault-rate and --truth without --faults have no effect", hint="Add --faults.")
        return (), 1.0
    if oracle is not None:
        raise CallerError(
            "--oracle with --faults: planted faults would be taken for losses", hint="Leave one of them out."
        )
    return kinds_of(faults), 1.0 if per_unit is None else per_unit


def tls_of(*, wanted: bool, ca: Path | None, insecure: bool) -> ssl.SSLContext | None:
    """How to encrypt. Raises CallerError for a certificate that cannot be read."""
    if not wanted:
        if ca or insecure:
            raise CallerError("--tls-ca and --tls-insecure without --tls have no effect", hint="Add --tls.")
        return None
    if ca and insecure:
        raise CallerError("--tls-insecure checks nothing, so --tls-ca has no effect", hint="Leave one of them out.")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # an SSLError is one too
        raise CallerError(
            f"{ca}: {error.strerror or error}", hint="It must be a PEM file with certificates."
        ) from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
