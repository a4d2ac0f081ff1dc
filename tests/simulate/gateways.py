"""A small gateway that can misbehave on purpose, and stand-in encoders whose packets it reads.

It keeps what arrived (records by device and time), what it acknowledged, and what it saw in the oracle
files at that moment. It is independent of the product: its packets only have the outer form of the real
ones.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias

from signalkeep.model import Signal
from signalkeep.simulate.oracle import sent_path

Behaviour: TypeAlias = Literal["ack", "half", "zero", "cut", "silent", "torn"]
Record: TypeAlias = tuple[str, str]  # device number, time


def time_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TeltonikaStandIn:
    """Login and packets with a length in front; the answers are the real ones."""

    def encode_login(self, device_number: str) -> bytes:
        return len(device_number).to_bytes(2) + device_number.encode()

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        body = json.dumps([time_text(signal.device_time) for signal in signals if signal.device_time]).encode()
        return len(body).to_bytes(4) + body


class JsonStandIn:
    """One line for each event, no login."""

    def encode_login(self, device_number: str) -> bytes:
        return b""

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        lines = [[device_number, time_text(signal.device_time)] for signal in signals if signal.device_time]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class AtOnceClock:
    """Time passes in one jump after the first look: everything that will ever be due is due at once."""

    def __init__(self) -> None:
        self._looks = 0

    def now(self) -> datetime:
        return datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC) + timedelta(seconds=0)

    def monotonic(self) -> float:
        self._looks += 1
        return 0.0 if self._looks == 1 else 1e6


@dataclass
class FakeGateway:
    """`async with` it; `port` is where it listens. `behave(n)` says what packet number n (from 1) gets."""

    protocol: str
    behave: Callable[[int], Behaviour] = lambda _: "ack"
    oracle: Path | None = None
    accept_login: bool = True
    packets: list[list[Record]] = field(default_factory=list)
    acknowledged: Counter[Record] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    connections: int = 0
    torn: int = 0  # packets that ended within

    async def __aenter__(self) -> FakeGateway:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._conversations: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._conversations:
            task.cancel()
        if self._conversations:
            await asyncio.wait(self._conversations)

    @property
    def received(self) -> set[Record]:
        return {record for packet in self.packets for record in packet}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await (self._teltonika if self.protocol == "teltonika" else self._json)(reader, writer)
        finally:
            self._conversations.discard(task)
            writer.close()

    async def _teltonika(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told: set[Record] = set()
        try:
            number = (await reader.readexactly(int.from_bytes(await reader.readexactly(2)))).decode()
            writer.write(b"\x01" if self.accept_login else b"\x00")
            while head := await reader.read(1):
                size = int.from_bytes(head + await reader.readexactly(3))
                packet = [(number, time) for time in json.loads(await reader.readexactly(size))]
                behaviour = self._take(packet, told)
                if behaviour == "ack":
                    self._acknowledge(packet, told)
                wrong = {"half": len(packet) - 1, "zero": 0}
                if behaviour == "torn":
                    writer.write(b"\x00\x00")
                elif behaviour in {"ack", *wrong}:
                    writer.write(wrong.get(behaviour, len(packet)).to_bytes(4))
                elif behaviour == "silent":
                    await reader.read()
                if behaviour in {"cut", "silent", "torn"}:
                    return
        except asyncio.IncompleteReadError:
            self.torn += 1

    async def _json(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told: set[Record] = set()
        while line := await reader.readline():
            if not line.endswith(b"\n"):
                self.torn += 1
                return
            number, time = json.loads(line)
            behaviour = self._take([(number, time)], told)
            if behaviour == "ack":
                self._acknowledge([(number, time)], told)
                writer.write(b"1")
            elif behaviour == "zero":
                writer.write(b"0")
            else:
                if behaviour == "silent":
                    await reader.read()
                return

    def _take(self, packet: list[Record], told: set[Record]) -> Behaviour:
        """Note the packet, look what the oracle files say at this moment, decide what it gets."""
        self.packets.append(packet)
        if self.oracle:
            safe, sent = _records(self.oracle), _records(sent_path(self.oracle))
            early = [record for record in packet if record in safe and record not in self.acknowledged]
            unsent = [record for record in packet if record not in sent]
            # Over Teltonika the device has read every earlier answer before it sends the next packet.
            late = told - safe if self.protocol == "teltonika" else set()
            for fault, records in (("safe too early", early), ("not noted as sent", unsent), ("late", late)):
                self.violations.extend(f"{fault}: {record}" for record in records)
        return self.behave(len(self.packets))

    def _acknowledge(self, packet: list[Record], told: set[Record]) -> None:
        self.acknowledged.update(packet)
        told.update(packet)


class FakeUdpGateway(asyncio.DatagramProtocol):
    """The same over UDP, for packets of the stand-in encoder in Teltonika's datagrams. `behave` as above, and:

    cut      the answer gets lost, though the records are kept
    silent   the datagram gets lost
    half     an answer with a smaller number
    torn     an answer that is too short
    zero     an answer to another packet
    """

    def __init__(self, behave: Callable[[int], Behaviour] = lambda _: "ack", *, oracle: Path | None = None) -> None:
        self.behave = behave
        self.oracle = oracle
        self.datagrams: list[bytes] = []
        self.packets: list[list[Record]] = []
        self.acknowledged: Counter[Record] = Counter()
        self.violations: list[str] = []

    async def __aenter__(self) -> FakeUdpGateway:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port: int = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def received(self) -> set[Record]:
        return {record for packet in self.packets for record in packet}

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.datagrams.append(data)
        assert int.from_bytes(data[:2]) == len(data) - 2
        assert data[4] == 1
        size = int.from_bytes(data[6:8])
        number, body = data[8 : 8 + size].decode(), data[8 + size :]
        packet = [(number, time) for time in json.loads(body)]
        self.packets.append(packet)
        if self.oracle:
            safe, sent = _records(self.oracle), _records(sent_path(self.oracle))
            self.violations += [
                f"safe too early: {one}" for one in packet if one in safe and one not in self.acknowledged
            ]
            self.violations += [f"not noted as sent: {one}" for one in packet if one not in sent]
        behaviour = self.behave(len(self.packets))
        answer = b"\x00\x05" + data[2:4] + b"\x01" + data[5:6] + bytes([len(packet)])
        if behaviour == "ack":
            self.acknowledged.update(packet)
            self._transport.sendto(answer, addr)
        elif behaviour != "silent" and behaviour != "cut":
            wrong = {"half": answer[:-1] + bytes([len(packet) - 1]), "torn": answer[:-1]}
            self._transport.sendto(wrong.get(behaviour, answer[:2] + bytes([answer[2] ^ 1]) + answer[3:]), addr)


def _records(path: Path) -> set[Record]:
    return {(line["device_number"], line["device_time"]) for line in lines(path)}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def records(path: Path) -> list[Record]:
    return [(line["device_number"], line["device_time"]) for line in lines(path)]
