"""Reads the few forms of YAML that our compose files use, and refuses every other: what is read here, all read alike.

Mappings and sequences by indentation, one-line lists in the notation of JSON, plain and double-quoted words, comments,
an anchor on a mapping (`&name`) and its use (`*name`, `<<: *name`). What different readers of YAML take for different
things (an unquoted 5027:5027, yes, 0644) must be quoted. Raises `NotOurYaml`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

KEY: Final = re.compile(r"(<<|[A-Za-z_][\w.-]*):(?: +(.*))?")
ANCHOR: Final = re.compile(r"&([\w-]+)(?: +(.*))?")
NUMBER: Final = re.compile(r"0|[1-9][0-9]*")
SURPRISING: Final = re.compile(
    r"[-?:,\[\]{}#&*!|>'\"%@`].*|.*(: | #).*|.*:|[-+.0-9][-+.0-9:_xobe]*|(?i:y|n|yes|no|on|off|null|~)"
)


class NotOurYaml(Exception):
    """The line, and what is wrong with it."""


class Line(NamedTuple):
    number: int
    indent: int
    text: str


def read(text: str) -> Any:
    """The document."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.lstrip(" ")
        if not bare or bare.startswith("#"):
            continue
        if "\t" in line or line != line.rstrip():
            raise NotOurYaml(f"line {number}: a tab, or blanks at the end")
        lines.append(Line(number, len(line) - len(bare), bare))
    reader = _Reader(lines)
    found = reader.block(0)
    if reader.lines:
        raise NotOurYaml(f"line {reader.lines[0].number}: its indentation fits nothing above")
    return found


class _Reader:
    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self._anchors: dict[str, Any] = {}

    def block(self, indent: int) -> Any:
        """What begins at the next line, with this indentation."""
        if not self.lines or self.lines[0].indent != indent:
            return None
        return self._sequence(indent) if self.lines[0].text.startswith("- ") else self._mapping(indent)

    def _sequence(self, indent: int) -> list[Any]:
        found = []
        while self.lines and self.lines[0].indent == indent and self.lines[0].text.startswith("- "):
            line = self.lines[0]
            item = line.text[2:]
            if KEY.fullmatch(item):  # a mapping that begins behind the dash
                self.lines[0] = Line(line.number, indent + 2, item)
                found.append(self._mapping(indent + 2))
            else:
                self.lines.pop(0)
                found.append(self._value(item, line))
        return found

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while self.lines and self.lines[0].indent == indent:
            line = self.lines.pop(0)
            pair = KEY.fullmatch(line.text)
            if pair is None:
                raise NotOurYaml(f"line {line.number}: no key: {line.text}")
            key, given = pair[1], pair[2] or ""
            anchor = ANCHOR.fullmatch(given)
            given = (anchor[2] or "") if anchor else given
            value = self._value(given, line) if given else self._below(indent)
            if anchor:
                self._anchors[anchor[1]] = value
            if key == "<<":
                merged = value
            elif key in found:
                raise NotOurYaml(f"line {line.number}: {key} a second time")
            else:
                found[key] = value
        return merged | found

    def _below(self, indent: int) -> Any:
        deeper = bool(self.lines) and self.lines[0].indent > indent
        return self.block(self.lines[0].indent) if deeper else None

    def _value(self, given: str, line: Line) -> Any:
        if given.startswith("*"):
            if given[1:] not in self._anchors:
                raise NotOurYaml(f"line {line.number}: no anchor {given}")
            return self._anchors[given[1:]]
        if given.startswith(('"', "[")):
            try:
                value = json.loads(given)
            except ValueError as error:
                raise NotOurYaml(f"line {line.number}: {error}") from error
            if isinstance(value, list) and not all(isinstance(one, str) for one in value):
                raise NotOurYaml(f"line {line.number}: a list of something else than quoted words")
            return value
        if given in {"true", "false"}:
            return given == "true"
        if NUMBER.fullmatch(given):
            return int(given)
        if SURPRISING.fullmatch(given):
            raise NotOurYaml(f"line {line.number}: to be quoted: {given}")
        return given
