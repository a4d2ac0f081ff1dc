"""Real device messages, as `../shared/vectors` beside the project or the folder in SIGNALKEEP_VECTORS holds them.

The folder is not part of the project. Where it is absent its tests are skipped, and a warning says so.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

ROOT: Final = Path(__file__).resolve().parents[2]


class Setup(msgspec.Struct):
    """`lead_in`: the rows that the same conversation saw before."""

    lead_in: list[int] = []
    config: dict[str, Any] = {}


class Row(msgspec.Struct):
    """One message and what it must give; the fields are those of the folder's README."""

    index: int
    kind: str
    raw: str
    verify: str
    setup: Setup
    expected: dict[str, Any] = {}

    @property
    def data(self) -> bytes:
        assert self.kind == "hex"
        return bytes.fromhex(self.raw)


class CommandRow(msgspec.Struct):
    """One command of a server to a device."""

    index: int
    command: dict[str, Any]
    expected_bytes: str


def folder() -> Path:
    """Where the messages are; skips the module that asks if they are nowhere."""
    found = Path(os.environ.get("SIGNALKEEP_VECTORS") or ROOT.parent / "shared" / "vectors")
    if not found.is_dir():
        reason = f"NO DEVICE MESSAGES, CONFORMANCE NOT TESTED: {found} is no folder (see SIGNALKEEP_VECTORS)"
        warnings.warn(reason, stacklevel=2)
        pytest.skip(reason, allow_module_level=True)
    return found


def rows(protocol: str) -> dict[int, Row]:
    """By index."""
    lines = (folder() / f"{protocol}.jsonl").read_bytes()
    return {row.index: row for row in msgspec.json.Decoder(Row).decode_lines(lines)}


def command_rows(protocol: str) -> list[CommandRow]:
    return msgspec.json.Decoder(CommandRow).decode_lines((folder() / f"{protocol}.commands.jsonl").read_bytes())
