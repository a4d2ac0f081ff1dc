"""UDP: one socket per port, each datagram a conversation of its own, answered when its frame is durable.

An answer goes to the address that the datagram came from, and from the address that it was sent to (where the platform
says which: Linux), for a device behind NAT hears nothing else. Reading stops while the intake is shut or too many
frames wait for the disk: datagrams then queue in the kernel, and beyond its buffer the network drops them, unanswered,
as it may at any time. A frame that could not be stored is not answered. No error of a peer or of the network ends it.
It is a plain socket, because the loop's datagram transports cannot stop reading.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

from signalkeep import limits
from signalkeep.gateway.shared import Shared
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Reason
from signalkeep.protocols.contract import DatagramProtocol, Frame, Identified, Refused, Reply
from signalkeep.telemetry import get_logger

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
Ancillary: TypeAlias = list[tuple[int, int, bytes]]

IP_PKTINFO: Final = 8  # of Linux; the socket module does not name it
IPV4_INFO: Final = struct.Struct("=I4s4s")  # interface, our address, address in the header
IPV6_INFO: Final = struct.Struct("=16sI")  # our address, interface
ANCILLARY_BYTES: Final = 128
LINK_LOCAL: Final = b"\xfe\x80"

log = get_logger()


class UdpPort:
    """One socket. `start` and `stop` say whether it is read; answers may leave until it is closed."""

    def __init__(self, shared: Shared, protocol: DatagramProtocol, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._shared = shared
        self._protocol = protocol
        self._tells_destination = _ask_for_destination(sock)
        self._held = 0
        self._held_by_address: dict[str, int] = {}
        self._reading = False
        self._stopped = False

    @property
    def port(self) -> int:
        number: int = self._socket.getsockname()[1]
        return number

    def start(self) -> None:
        self._shared.intake.join(self)
        self._regulate()

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        self._shared.intake.leave(self)
        self._regulate()

    def close(self) -> None:
        self.stop()
        self._socket.close()

    def intake_changed(self) -> None:
        self._regulate()

    def _regulate(self) -> None:
        held_max = limits.DATAGRAMS_HELD_MAX if self._reading else limits.DATAGRAMS_HELD_MAX // 2
        read = not self._stopped and self._shared.intake.open and self._held < held_max
        if read == self._reading:
            return
        self._reading = read
        loop = asyncio.get_running_loop()
        if read:
            loop.add_reader(self._socket.fileno(), self._readable)
        else:
            loop.remove_reader(self._socket.fileno())

    def _readable(self) -> None:
        shared = self._shared
        now_us, read_at = shared.now_us(), shared.monotonic()
        for _ in range(limits.DATAGRAMS_PER_WAKE_UP_MAX):
            try:
                data, ancillary, _, source = self._socket.recvmsg(
                    limits.FRAME_BYTES_MAX, ANCILLARY_BYTES if self._tells_destination else 0
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # what became of an answer of ours, or the network is away: neither is news
                continue
            shared.stats.datagrams += 1
            shared.stats.bytes_received += len(data)
            try:
                self._datagram(data, source, ancillary, now_us, read_at)
            except Exception:  # a mistake of ours costs this datagram, not the gateway
                log.exception("datagram failed", protocol=self._protocol.name)
                shared.count(Reason.GATEWAY_ERROR)
            if not self._reading:
                return
        shared.intake.follow_pending(shared.writer.pending_bytes)

    def _datagram(self, data: bytes, source: Address, ancillary: Ancillary, now_us: int, read_at: float) -> None:
        shared, address = self._shared, source[0]
        number: str | None = None
        if len(data) > shared.settings.frame_bytes_max:
            shared.count(Reason.OVERSIZED)
            return
        for event in self._protocol.datagram(data):
            match event:
                case Frame():
                    assert number is not None, "a protocol names the device before its frames"
                    reason = self._admitted(number, address, len(event.raw))
                    if reason is not None:
                        shared.count(reason)
                        return
                    entry = FrameEntry(
                        now_us,
                        self._protocol.name,
                        number,
                        f"{address}:{source[1]}",
                        event.context,
                        event.raw,
                    )
                    self._store(entry, event.reply, source, ancillary, read_at)
                case Identified():
                    number = event.device_number
                    reason = shared.policy.refusal(number)
                    if reason is not None:
                        shared.count(reason)
                        self._send(event.refusal, source, ancillary)
                        return
                    self._send(event.reply, source, ancillary)
                case Reply(data=said):
                    self._send(said, source, ancillary)
                case Refused(reason=refused):
                    shared.count(refused)

    def _admitted(self, number: str, address: str, size_bytes: int) -> Reason | None:
        if self._held_by_address.get(address, 0) >= limits.DATAGRAMS_HELD_PER_ADDRESS_MAX:
            return Reason.ADDRESS_LIMIT
        return self._shared.policy.admit(number, address, size_bytes)

    def _store(self, entry: FrameEntry, reply: bytes, source: Address, ancillary: Ancillary, read_at: float) -> None:
        shared, address = self._shared, source[0]
        self._held += 1
        self._held_by_address[address] = self._held_by_address.get(address, 0) + 1
        shared.held += 1
        shared.stats.frames += 1
        shared.stats.frame_bytes += len(entry.raw)
        shared.writer.append(entry, partial(self._settled, reply, source, ancillary, read_at))
        if self._held >= limits.DATAGRAMS_HELD_MAX:
            self._regulate()

    def _settled(self, reply: bytes, source: Address, ancillary: Ancillary, read_at: float, durable: bool) -> None:
        shared, address = self._shared, source[0]
        self._held -= 1
        left = self._held_by_address[address] - 1
        if left:
            self._held_by_address[address] = left
        else:
            del self._held_by_address[address]
        shared.held -= 1
        if durable:
            shared.stats.durable(shared.monotonic() - read_at)
            self._send(reply, source, ancillary)
        if not self._reading:
            if not shared.intake.open:
                shared.intake.follow_pending(shared.writer.pending_bytes)
            self._regulate()

    def _send(self, data: bytes, destination: Address, ancillary: Ancillary) -> None:
        """An answer that cannot leave is lost like one that the network drops: the device sends again."""
        if not data or self._socket.fileno() < 0:
            return
        with suppress(OSError):
            self._socket.sendmsg([data], _from_there(ancillary), 0, destination)


def _ask_for_destination(sock: socket.socket) -> bool:
    """Have the kernel say with each datagram which of our addresses it was sent to; False where it does not."""
    if sys.platform != "linux":
        return False
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return True


def _from_there(ancillary: Ancillary) -> Ancillary:
    """What makes an answer leave from the address that a datagram was sent to, over whatever interface leads back."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) == IPV4_INFO.size:
            _, ours, _ = IPV4_INFO.unpack(data)
            return [(level, kind, IPV4_INFO.pack(0, ours, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and len(data) == IPV6_INFO.size:
            ours, interface = IPV6_INFO.unpack(data)
            return [(level, kind, IPV6_INFO.pack(ours, interface if ours.startswith(LINK_LOCAL) else 0))]
    return []
