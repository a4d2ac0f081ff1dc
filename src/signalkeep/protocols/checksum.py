"""The checksums of tracker protocols under the names that the fact sheets use.

Each function takes any bytes-like object and returns the checksum as an unsigned integer; the comment gives its value
over the nine digits 123456789, which the tests check. Only those that a protocol uses are listed. Never raises.
"""

from __future__ import annotations

from typing import Final

from fastcrc import crc16

crc16_ibm: Final = crc16.arc  # CRC-16/IBM, also called ARC: BB3D
