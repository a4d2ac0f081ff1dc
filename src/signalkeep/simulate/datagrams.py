"""The device's side of Teltonika over UDP: a datagram around the data of a packet.

    u16 length of what follows, u16 packet id, u8 01, u8 AVL packet id, u16 length of the number, number, data

The data are those between length and checksum of a TCP packet. Source: the maker's public page "Teltonika Data
Sending Protocols". Pure.
"""

from __future__ import annotations

from typing import Final

HEADER_BYTES: Final = 8
CHECKSUM_BYTES: Final = 4


def datagram(packet: bytes, device_number: str, packet_id: int, avl_packet_id: int) -> bytes:
    """The datagram with the records of a packet."""
    number = device_number.encode("ascii")
    body = packet_id.to_bytes(2) + bytes([1, avl_packet_id]) + len(number).to_bytes(2) + number
    body += packet[HEADER_BYTES:-CHECKSUM_BYTES]
    return len(body).to_bytes(2) + body
