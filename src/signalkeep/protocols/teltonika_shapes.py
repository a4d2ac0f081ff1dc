"""Records with the same elements as an earlier one: recognised by one comparison, read by one unpack.

A device sends the same elements in the same order for years; only their values change. A `Shape` is learnt from a
record that was read the long way: where its counts and ids stand (`mask`), which they are (`skeleton`), and what
becomes of each value. A record that has them all in the same places is read by the shape and gives what the long way
gives: a shape is nothing but that, remembered. Records in which a name comes twice, or with elements of variable
length, have none.

Bounded: at most SHAPES_MAX shapes for a layout; when hostile ids have filled the memory it begins anew. Pure: what is
remembered changes no answer, only its cost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from signalkeep.protocols.teltonika_io import Divided, Table

SHAPES_MAX: Final = 2_000
ALIKE_MAX: Final = 8  # shapes with the same number of elements that are tried

CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Shape(NamedTuple):
    """`numbers` unpacks the values alone. The rest: places and names of those whose number is not yet the value."""

    length: int  # of all elements with their counts, bytes
    mask: int
    skeleton: int
    numbers: struct.Struct
    names: tuple[str, ...]
    flags: tuple[tuple[int, str], ...]
    divided: tuple[tuple[int, str, int], ...]
    converted: tuple[tuple[int, str, str, Callable[[int], Any]], ...]  # place, name, name where it is no reading, how


class Shapes:
    """The shapes of one layout: groups of elements of 1, 2, 4 and 8 bytes, then the counts of groups that are empty."""

    def __init__(self, counter: struct.Struct, id_bytes: int, tables: Sequence[tuple[int, Table]]) -> None:
        self._counter = counter
        self._id_bytes = id_bytes
        self._tables = tables  # size of the values in bytes, and what they mean
        self._by_elements: dict[int, list[Shape]] = {}
        self._count = 0

    def read(self, body: bytes, at: int, announced: int) -> tuple[dict[str, Any], int] | None:
        """The attributes of the elements at `at`, and where they end; None if no shape fits."""
        for shape in self._by_elements.get(announced, ()):
            end = at + shape.length
            if int.from_bytes(body[at:end]) & shape.mask == shape.skeleton and end <= len(body):
                return _attributes(shape, shape.numbers.unpack_from(body, at)), end
        return None

    def learn(self, body: bytes, at: int, end: int, announced: int) -> None:
        """Remember the shape of a record that was read the long way and has as many elements as it announces."""
        if self._count >= SHAPES_MAX:
            self._by_elements, self._count = {}, 0
        alike = self._by_elements.setdefault(announced, [])
        if len(alike) >= ALIKE_MAX:
            return
        shape = self._shape(body, at, end)
        if shape is not None:
            alike.append(shape)
            self._count += 1

    def _shape(self, body: bytes, at: int, end: int) -> Shape | None:
        begin, form, mask = at, ">", b""
        meanings: list[tuple[str, str, Callable[[int], Any] | None]] = []
        for size, table in self._tables:
            (count,) = self._counter.unpack_from(body, at)
            at += self._counter.size
            form += f"{self._counter.size}x"
            mask += b"\xff" * self._counter.size
            for _ in range(count):
                io_id = int.from_bytes(body[at : at + self._id_bytes])
                meanings.append((*table.get(io_id, (f"io{io_id}", None)), f"io{io_id}"))  # type: ignore[arg-type]  # unpacking a pair
                at += self._id_bytes + size
                form += f"{self._id_bytes}x{CODES[size]}"
                mask += b"\xff" * self._id_bytes + bytes(size)
        if any(body[at:end]):
            return None  # groups of other kinds follow, which are not empty
        mask += b"\xff" * (end - at)
        whole = int.from_bytes(mask)
        return _shape_of(meanings, end - begin, whole, int.from_bytes(body[begin:end]) & whole, struct.Struct(form))


def _shape_of(meanings: Sequence[Any], length: int, mask: int, skeleton: int, numbers: struct.Struct) -> Shape | None:
    """None where two elements have the same name, or might get it."""
    flags, divided, converted = [], [], []
    for place, (name, convert, unread) in enumerate(meanings):
        if convert is bool:
            flags.append((place, name))
        elif isinstance(convert, Divided):
            divided.append((place, name, convert.divisor))
        elif convert is not None:
            converted.append((place, name, unread, convert))
    names = tuple(name for name, _, _ in meanings)
    every_name = {*names, *(unread for _, _, unread, _ in converted)}
    if len(every_name) < len(names) + len(converted):
        return None
    return Shape(length, mask, skeleton, numbers, names, tuple(flags), tuple(divided), tuple(converted))


def _attributes(shape: Shape, numbers: tuple[int, ...]) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(zip(shape.names, numbers))  # noqa: B905 - as many, by construction, and it is faster
    for place, name in shape.flags:
        attributes[name] = numbers[place] != 0
    for place, name, divisor in shape.divided:
        attributes[name] = numbers[place] / divisor
    for place, name, unread, convert in shape.converted:
        value = convert(numbers[place])
        if value is None:
            del attributes[name]
            attributes[unread] = numbers[place]
        else:
            attributes[name] = value
    return attributes
