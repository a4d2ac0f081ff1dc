"""`simulate`: run a fleet of virtual devices against a gateway and say what became of every record.

Ends by itself after the duration, or at SIGINT and SIGTERM; what is not acknowledged then is sent until
the grace period is over. Exit code 1 if something stayed unconfirmed. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from signalkeep.cli.common import JsonOption, err, out, print_json, run_async
from signalkeep.clock import SystemClock
from signalkeep.errors import CallerError
from signalkeep.protocols.contract import Encoder
from signalkeep.protocols.registry import ENCODERS, get
from signalkeep.simulate import fleet
from signalkeep.simulate.fleet import Fleet, Plan, raise_descriptor_limit
from signalkeep.simulate.oracle import OracleWriter
from signalkeep.simulate.plan import CUT_RATE
from signalkeep.simulate.track import Track
from signalkeep.simulate.track_files import read_track
from signalkeep.simulate.unit import Counts

PROGRESS_S: Final = 0.25
RATE: Final = 10.0


class Report(msgspec.Struct, frozen=True):
    """What a run did, in records unless the name says otherwise."""

    devices: int
    generated: int
    sent: int
    resent: int
    told_safe: int
    unconfirmed: int
    packets: int
    connections: int
    own_cuts: int
    failed_connections: int
    gaps: int
    last_failure: str


ROWS: Final = (
    ("devices", "devices"),
    ("generated", "records generated"),
    ("sent", "records sent, with re-sends"),
    ("resent", "records sent again"),
    ("told_safe", "records told safe"),
    ("unconfirmed", "records unconfirmed"),
    ("packets", "packets"),
    ("connections", "connections"),
    ("own_cuts", "connections cut on purpose"),
    ("failed_connections", "connections refused, cut or answered wrongly"),
    ("gaps", "times without network"),
)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no time; write it like 2026-05-01T08:00:00Z") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def simulate(
    *,
    devices: Annotated[int, typer.Option("--devices", min=1, help="virtual devices")] = 10,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="records per second, of the whole fleet; default: 10, or the track's own times",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[float, typer.Option("--duration", min=0, help="seconds; 0: until stopped")] = 60.0,
    protocol: Annotated[str, typer.Option("--protocol", help="teltonika or json")] = "teltonika",
    oracle: Annotated[
        Path | None,
        typer.Option("--oracle", help="append what devices were told is safe here, and what they sent to FILE.sent"),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="gateway to send to")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="default: the protocol's own")] = None,
    transport: Annotated[str, typer.Option("--transport", help="tcp, or udp for teltonika")] = "tcp",
    tls: Annotated[bool, typer.Option("--tls", help="encrypt, and check the gateway's certificate")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="certificate to trust instead of the system's", show_default=False)
    ] = None,
    tls_insecure: Annotated[bool, typer.Option("--tls-insecure", help="encrypt, and check nothing")] = False,
    scenario: Annotated[
        str, typer.Option("--scenario", help="who drives: mixed, city, delivery or long-haul")
    ] = "mixed",
    track: Annotated[
        Path | None, typer.Option("--track", help="drive along this GPX or CSV file, in loops", show_default=False)
    ] = None,
    speed_factor: Annotated[float, typer.Option("--speed-factor", help="how much faster than the track")] = 1.0,
    gaps: Annotated[bool, typer.Option("--gaps/--no-gaps", help="times without network or satellites")] = True,
    drift: Annotated[bool, typer.Option("--drift/--no-drift", help="clocks that are not quite right")] = True,
    wrong_clocks: Annotated[
        float, typer.Option("--wrong-clocks", help="share of units whose clock is behind by hours, or by weeks")
    ] = 0.0,
    start: Annotated[
        datetime | None,
        typer.Option("--start", parser=_moment, metavar="TIME", help="of the first record; default: now"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="decides roads, drives, packet sizes and cuts")] = 1,
    first_number: Annotated[
        int,
        typer.Option("--first-number", help="15 digits; device numbers count up from here, with check digit"),
    ] = fleet.FIRST_NUMBER,
    cut_rate: Annotated[
        float, typer.Option("--cut-rate", help="share of packets after which the device cuts the connection")
    ] = CUT_RATE,
    grace: Annotated[float, typer.Option("--grace", min=0, help="seconds to drain at the end")] = fleet.GRACE_S,
    as_json: JsonOption = False,
) -> None:
    """Drive virtual vehicles that send to a gateway, and keep what it does not acknowledge."""
    if track is None and speed_factor != 1:
        raise CallerError("--speed-factor without --track has no effect", hint="Give a track, or leave it out.")
    along = read_track(track) if track else None
    plan = Plan(
        protocol=protocol,
        host=host,
        port=get(protocol).default_port if port is None else port,
        transport=transport,
        tls=_tls(wanted=tls, ca=tls_ca, insecure=tls_insecure),
        devices=devices,
        rate_per_s=_rate(along, speed_factor, devices) if rate is None else rate,
        duration_s=duration,
        grace_s=grace,
        start=start,
        seed=seed,
        first_number=first_number,
        scenario=scenario,
        gaps=gaps,
        drift=drift,
        wrong_clocks=wrong_clocks,
        track=along,
        as_recorded=rate is None,
        speed_factor=speed_factor,
        cut_rate=cut_rate,
    )
    raise_descriptor_limit(devices)
    with OracleWriter(oracle) if oracle else nullcontext() as writer:
        counts = run_async(_run(plan, ENCODERS[protocol], writer))
    report = report_of(plan, counts)
    if as_json:
        print_json(report)
    else:
        _print_table(report)
        if report.unconfirmed and report.last_failure:
            err.print(f"the last failure was: {report.last_failure}", markup=False)
    if report.unconfirmed:
        raise typer.Exit(1)


def report_of(plan: Plan, counts: Counts) -> Report:
    """The counts of a run under the names that `--json` prints."""
    return Report(
        devices=plan.devices,
        generated=counts.generated,
        sent=counts.sent,
        resent=counts.resent,
        told_safe=counts.told_safe,
        unconfirmed=counts.unconfirmed,
        packets=counts.packets,
        connections=counts.connections,
        own_cuts=counts.own_cuts,
        failed_connections=counts.failures,
        gaps=counts.gaps,
        last_failure=counts.last_failure,
    )


def _tls(*, wanted: bool, ca: Path | None, insecure: bool) -> ssl.SSLContext | None:
    """How to encrypt. Raises CallerError for a certificate that cannot be read."""
    if not wanted:
        if ca or insecure:
            raise CallerError("--tls-ca and --tls-insecure without --tls have no effect", hint="Add --tls.")
        return None
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


def _rate(track: Track | None, speed_factor: float, devices: int) -> float:
    """Records of the whole fleet per second where nobody says: on a track, as many as it has."""
    if track is None:
        return RATE
    return devices * len(track.times_s) / track.period_s * speed_factor


async def _run(plan: Plan, encoder: Encoder, oracle: OracleWriter | None) -> Counts:
    virtual = Fleet(plan, encoder, SystemClock(), oracle)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        virtual.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    showing = asyncio.create_task(_show(plan, virtual.counts, err)) if err.is_terminal else None
    try:
        return await virtual.run()
    finally:
        if showing:
            showing.cancel()
            await asyncio.wait([showing])


async def _show(plan: Plan, counts: Counts, console: Console) -> None:
    """Follow the counts on a terminal until cancelled."""
    total = plan.rate_per_s * plan.duration_s or None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} told safe, {task.fields[waiting]} waiting, {task.fields[cuts]} cuts"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"{plan.devices} {plan.protocol} devices", total=total, waiting=0, cuts=0)
        while True:
            progress.update(
                bar,
                completed=counts.told_safe,
                waiting=counts.unconfirmed,
                cuts=counts.own_cuts + counts.failures,
            )
            await asyncio.sleep(PROGRESS_S)


def _print_table(report: Report) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, label in ROWS:
        style = "bold red" if name == "unconfirmed" and report.unconfirmed else ""
        table.add_row(label, f"{getattr(report, name):,}", style=style)
    out.print(table)
