"""The device's side of each protocol's answers, read as the makers' papers say, not as the product writes
them.

Promises: a record counts as told safe only when the answer that says so has arrived whole. Shares no code
with the gateway: a gateway that answers wrongly must not be understood by the fault it has in common with
its tester. Pure: bytes in, numbers out; whoever waits for them bounds the time.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol


class BadAnswerError(Exception):
    """The other side closed, refused, or said something that is no acknowledgement of what was sent."""


class Answers(Protocol):
    """How a device learns over a connection that its records are safe. What is understood leaves the buffer."""

    def login(self, buffer: bytearray) -> bool:
        """Whether the login is accepted; False: not yet said. Raises BadAnswerError."""
        ...

    def packet(self, buffer: bytearray, records: int) -> int:
        """How many of a packet's last `records` are safe now, oldest first; 0: not yet said. Raises BadAnswerError."""
        ...


class TeltonikaAnswers:
    """One byte 01 accepts the login; u32, the number of records, accepts a packet, any other none of it."""

    def login(self, buffer: bytearray) -> bool:
        if not buffer:
            return False
        if buffer[0] != 1:
            raise BadAnswerError(f"login answered with {buffer[:1].hex()}")
        del buffer[0]
        return True

    def packet(self, buffer: bytearray, records: int) -> int:
        if len(buffer) < 4:
            return 0
        if int.from_bytes(buffer[:4]) != records:
            raise BadAnswerError(f"{records} records answered with {buffer[:4].hex()}")
        del buffer[:4]
        return records


class JsonAnswers:
    """No answer to a login, as there is none; one character 1 for each event, in their order."""

    def login(self, buffer: bytearray) -> bool:  # noqa: ARG002 - others read it
        return True

    def packet(self, buffer: bytearray, records: int) -> int:
        answer = buffer[:records]
        accepted = len(answer) - len(answer.lstrip(b"1"))
        if answer and not accepted:
            raise BadAnswerError(f"event answered with {answer.hex()}")
        del buffer[:accepted]
        return accepted


ANSWERS: Final[dict[str, Answers]] = {"teltonika": TeltonikaAnswers(), "json": JsonAnswers()}


class DatagramAnswer(NamedTuple):
    """To a datagram: u16 0005, u16 packet id, u8 01, u8 AVL packet id, u8 number of accepted records."""

    packet_id: int
    avl_packet_id: int
    accepted: int


def datagram_answer(data: bytes) -> DatagramAnswer:
    """Raises BadAnswerError."""
    if len(data) != 7 or data[:2] != b"\x00\x05" or data[4] != 1:
        raise BadAnswerError(f"datagram answered with {data[:16].hex()}")
    return DatagramAnswer(int.from_bytes(data[2:4]), data[5], data[6])
