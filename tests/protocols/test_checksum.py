"""The check values of the checksums: over the digits 123456789, as every catalogue of checksums gives them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from signalkeep.protocols import checksum


@pytest.mark.parametrize(("function", "value"), [(checksum.crc16_ibm, 0xBB3D)])
def test_check_value(function: Callable[[bytes], int], value: int) -> None:
    assert function(b"123456789") == value
