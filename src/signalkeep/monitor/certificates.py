"""When our certificates end. Reads the PEM files that the settings name, and nothing secret.

A file that cannot be read, or holds no certificate, is a fault in words, never an error: whoever uses it says more.
Blocking: it runs in a thread.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from signalkeep import limits
from signalkeep.config import Settings
from signalkeep.store.services import Seen

PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE, INTEGER, VERSION, UTC_TIME, GENERAL_TIME = 0x30, 0x02, 0xA0, 0x17, 0x18


def certificates(settings: Settings) -> dict[str, Path]:
    """Those that somebody checks who connects to us, by the setting that names them."""
    found: dict[str, Path] = {}
    if settings.gateway.tls.ports and settings.gateway.tls.certificate:
        found["gateway.tls.certificate"] = settings.gateway.tls.certificate
    if settings.database.listen and settings.database.listen_certificate:
        found["database.listen_certificate"] = settings.database.listen_certificate
    return found


def look(settings: Settings, now: datetime) -> list[Seen]:
    """Each with when it ends, if that is soon."""
    return [_seen(f"certificate {setting}", path, now) for setting, path in certificates(settings).items()]


def _seen(name: str, path: Path, now: datetime) -> Seen:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            ends = min(ends_of(file.read(limits.CERTIFICATE_BYTES_MAX)))
    except OSError as error:
        return Seen(name, "degraded", f"{path} cannot be read: {error.strerror or error}")
    except ValueError as error:
        return Seen(name, "degraded", f"{path} holds no certificate that can be read: {error}")
    left_s = (ends - now).total_seconds()
    if left_s <= 0:
        return Seen(name, "down", f"{path} has ended on {ends:%Y-%m-%d %H:%M} UTC")
    if left_s < limits.CERTIFICATE_S_MIN:
        return Seen(name, "degraded", f"{path} ends on {ends:%Y-%m-%d %H:%M} UTC, in {left_s / 86400:.0f} days")
    return Seen(name)


def ends_of(text: str) -> list[datetime]:
    """When each certificate of a PEM file ends. Raises ValueError if there is none, or one is malformed."""
    blocks = PEM.findall(text)
    if not blocks:
        raise ValueError("there is none in it")
    return [end_of(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]


def end_of(der: bytes) -> datetime:
    """RFC 5280, 4.1: version, serial number, algorithm and issuer stand before the validity. Raises ValueError."""
    _, certificate = next(_parts(der), (0, b""))
    _, signed = next(_parts(certificate), (0, b""))
    parts = [part for part in _parts(signed) if part[0] != VERSION]
    if [tag for tag, _ in parts[:4]] != [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE]:
        raise ValueError("it is no certificate")
    times = list(_parts(parts[3][1]))
    if len(times) != 2 or times[1][0] not in {UTC_TIME, GENERAL_TIME}:
        raise ValueError("it has no time at which it ends")
    digits = times[1][1].decode("ascii")
    if times[1][0] == UTC_TIME:  # two digits of the year: 50 and above are of the last century
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and contents of each element that stands there. Raises ValueError where one is cut off."""
    place = 0
    while place < len(data):
        if place + 2 > len(data):
            raise ValueError("it is cut off")
        tag, length, place = data[place], data[place + 1], place + 2
        if length & 0x80:
            size = length & 0x7F
            length, place = int.from_bytes(data[place : place + size]), place + size
        if place + length > len(data):
            raise ValueError("it is cut off")
        yield tag, data[place : place + length]
        place += length
