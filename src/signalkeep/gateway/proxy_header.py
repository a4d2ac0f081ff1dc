"""The PROXY protocol, version 2: what a load balancer says of a connection before the device's own bytes.

    header    12 bytes signature, u8 version 2 and command, u8 family and transport, u16 length of what follows,
              source and destination address, u16 ports, then what balancers add (passed over)
    command   0 LOCAL: the balancer itself asks whether we live; 1 PROXY: it speaks for somebody

Source: HAProxy's "The PROXY protocol", section 2.2. Numbers are big-endian. Of a family without addresses (unspecified
or Unix sockets) the connection's own address stands. Version 1, a line of text, is not understood. Bad bytes are
refused at the first that cannot be. Pure; never raises; looks at no more than limits.PROXY_HEADER_BYTES_MAX.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED: Final = struct.Struct(">12sBBH")
VERSION: Final = 0x20
LOCAL: Final = 0
PROXY: Final = 1
TCP_OVER_IPV4: Final = 0x11
TCP_OVER_IPV6: Final = 0x21
PORTS_BYTES: Final = 4
WITHOUT_ADDRESS: Final = frozenset({0x00, 0x31})  # unspecified; stream over a Unix socket


class Header(msgspec.Struct, frozen=True):
    """A whole header. `source`: address and port of the device, None if none is said."""

    size_bytes: int  # the device's own bytes begin behind them
    local: bool
    source: tuple[str, int] | None


class Malformed(msgspec.Struct, frozen=True):
    """Bytes that no header begins with."""

    what: str


Parsed: TypeAlias = Header | Malformed | None


def parse(data: bytes) -> Parsed:
    """The header at the front; None if more bytes are needed."""
    if not data.startswith(SIGNATURE[: len(data)]):
        return Malformed("no signature")
    if len(data) > len(SIGNATURE) and data[len(SIGNATURE)] not in (VERSION | LOCAL, VERSION | PROXY):
        return Malformed("unknown version or command")
    if len(data) < FIXED.size:
        return None
    _, command, family, length = FIXED.unpack_from(data)
    size_bytes = FIXED.size + length
    if size_bytes > limits.PROXY_HEADER_BYTES_MAX:
        return Malformed("too long")
    local = command == VERSION | LOCAL
    address_bytes = {TCP_OVER_IPV4: 4, TCP_OVER_IPV6: 16}.get(family, 0)
    if not local:
        if not address_bytes and family not in WITHOUT_ADDRESS:
            return Malformed("not about TCP")
        if address_bytes and length < 2 * address_bytes + PORTS_BYTES:
            return Malformed("too short for its addresses")
    if len(data) < size_bytes:
        return None
    if local or not address_bytes:
        return Header(size_bytes, local, None)
    packed = data[FIXED.size : FIXED.size + address_bytes]
    address = IPv4Address(packed) if address_bytes == 4 else IPv6Address(packed)
    (port,) = struct.unpack_from(">H", data, FIXED.size + 2 * address_bytes)
    return Header(size_bytes, local, (str(address), port))
