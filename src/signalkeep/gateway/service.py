"""The gateway process: listens, journals, answers; one new journal for its life.

Order at the end: stop listening, stop reading, let the journal finish, answer what became durable, close. A failed sync
ends the process at once and without a word to any device; the supervisor starts a new one with a new journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import SyncFailed
from signalkeep.gateway.intake import Intake, Shut
from signalkeep.gateway.listen import UDP_SUFFIX, allow_descriptors, tcp_sockets, udp_sockets
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.registry import RegistryFollower
from signalkeep.gateway.shared import Shared
from signalkeep.gateway.stats import GatewayStats
from signalkeep.gateway.tcp import Port
from signalkeep.gateway.tls import TlsSource
from signalkeep.gateway.udp import UdpPort
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import find_journals, segments
from signalkeep.journal.record import TallyEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.protocols.contract import DatagramProtocol
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store.postgres import Connection, dsn_of
from signalkeep.store.schema import connect_migrated
from signalkeep.telemetry import get_logger

log = get_logger()


class GatewayService:
    """One gateway process. `run` returns after a clean stop and raises SyncFailed when the journal cannot go on."""

    def __init__(self, settings: Settings, *, fs: FileSystem, clock: Clock, stop: asyncio.Event) -> None:
        self._settings = settings
        self._fs = fs
        self._clock = clock
        self._stop = stop
        gateway = settings.gateway
        self._tls = TlsSource(gateway.tls) if gateway.tls.ports else None
        self._policy = Policy(
            settings.unknown_devices,
            Caps(
                gateway.unknown_bytes_per_device,
                gateway.unknown_bytes_per_address,
                gateway.unknown_bytes_total,
            ),
        )
        self.intake = Intake(on_change=_log_intake)
        self._disk_answers = True
        self.writer = JournalWriter.create(
            fs,
            settings.journal_root,
            clock=clock,
            segment_bytes=settings.journal.segment_bytes,
            lanes=settings.lanes,
        )
        self._shared = Shared(
            writer=self.writer,
            intake=self.intake,
            policy=self._policy,
            clock=clock,
            settings=gateway,
        )
        self._servers: list[asyncio.Server] = []
        self._udp_ports: list[UdpPort] = []

    @property
    def stats(self) -> GatewayStats:
        """Counts since the start."""
        return self._shared.stats

    @property
    def connections_open(self) -> int:
        return len(self._shared.connections)

    @property
    def held(self) -> int:
        """Frames that wait for the disk."""
        return self._shared.held

    async def run(self, on_ready: Callable[[dict[str, int]], None]) -> None:
        """Serve until told to stop. `on_ready` gets the ports once devices can connect."""
        allow_descriptors(self._settings.gateway.connections_max)
        follower = RegistryFollower(self._policy, self._settings.run_root / "registry.json", self._connect)
        follower.load_snapshot()
        journal = asyncio.create_task(self.writer.run(), name="journal")
        helpers = [
            asyncio.create_task(follower.run(), name="registry"),
            asyncio.create_task(self._watch(), name="watch"),
        ]
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            self._check_disk()
            on_ready(await self._listen())
            done, _ = await asyncio.wait([journal, stop, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # a task that ends by itself has failed: so does the process
            await self._finish(journal)
        except SyncFailed:
            for connection in list(self._shared.connections):
                connection.abort()
            raise
        finally:
            for server in self._servers:
                server.close()
            for udp_port in self._udp_ports:
                udp_port.close()
            for task in [stop, *helpers]:
                task.cancel()
            if not journal.done():
                journal.cancel()

    async def _listen(self) -> dict[str, int]:
        """The ports in use: by protocol, those for datagrams as `name/udp`."""
        loop = asyncio.get_running_loop()
        gateway, ports = self._settings.gateway, {}
        for name, number in gateway.ports.items():
            port = Port(
                self._shared,
                PROTOCOLS[name],
                self._tls if name in gateway.tls.ports else None,
                gateway.proxy_from if name in gateway.proxy_protocol else (),
            )
            for sock in tcp_sockets(name, gateway.host, number):
                self._servers.append(
                    await loop.create_server(port.connection, sock=sock, backlog=limits.LISTEN_BACKLOG)
                )
                ports[name] = sock.getsockname()[1]
        for name, number in gateway.served_udp().items():
            protocol = PROTOCOLS[name]
            assert isinstance(protocol, DatagramProtocol)
            for sock in udp_sockets(name, gateway.host, number):
                udp_port = UdpPort(self._shared, protocol, sock)
                self._udp_ports.append(udp_port)
                ports[name + UDP_SUFFIX] = udp_port.port
                udp_port.start()
        return ports

    async def _finish(self, journal: asyncio.Task[None]) -> None:
        """Stop reading, let everything appended become durable and be answered, then close."""
        for server in self._servers:
            server.close()
        self.intake.set(Shut.STOPPING, True)
        for udp_port in self._udp_ports:
            udp_port.stop()
        for connection in list(self._shared.connections):
            connection.note_end("gateway stopped")
            connection.close_when_answered()
        self._tally()
        async with asyncio.timeout(limits.STOP_GRACE_S):
            await self.writer.close()
            await journal
        for connection in list(self._shared.connections):
            connection.close_when_answered()
        deadline = self._clock.monotonic() + limits.STOP_GRACE_S
        while self._shared.connections and self._clock.monotonic() < deadline:
            await asyncio.sleep(0.01)  # closing transports still flush their last answers

    async def _watch(self) -> None:
        """Every second: tallies, the disk, and connections that have outstayed a deadline."""
        while True:
            await asyncio.sleep(limits.TALLY_INTERVAL_S)
            self._tally()
            self._check_disk()
            self.intake.follow_pending(self.writer.pending_bytes)
            if self.intake.open:
                self._close_overdue()
            if self._tls is not None:
                self._tls.refresh()

    def _tally(self) -> None:
        if self._shared.refusals:
            counts, self._shared.refusals = self._shared.refusals, {}

            def done(durable: bool) -> None:
                if not durable:  # the next tally takes them along
                    for reason, count in counts.items():
                        self._shared.refusals[reason] = self._shared.refusals.get(reason, 0) + count

            self.writer.append(TallyEntry(at_us=self._shared.now_us(), counts=counts), done)

    def _check_disk(self) -> None:
        root, journal = self._settings.journal_root, self._settings.journal
        try:
            directories = find_journals(self._fs, root)
            used = sum(size for directory in directories for _, _, size in segments(self._fs, directory))
            free = self._fs.free_bytes(root)
        except OSError as error:  # what was known a second ago holds on; the journal's own writes tell more
            if self._disk_answers:
                log.warning("the disk of the journal cannot be asked", path=str(root), error=error.strerror)
            self._disk_answers = False
            return
        self._disk_answers = True
        self.intake.follow_disk(
            used_bytes=used,
            cap_bytes=journal.cap_bytes,
            free_bytes=free,
            free_min_bytes=journal.disk_free_bytes,
        )

    def _close_overdue(self) -> None:
        now = self._clock.monotonic()
        for connection in list(self._shared.connections):
            reason = connection.overdue(now)
            if reason is not None:
                connection.give_up(reason)

    async def _connect(self) -> Connection:
        return await connect_migrated(
            dsn_of(self._settings), application="signalkeep gateway", settings=self._settings.database
        )


def _log_intake(reasons: set[Shut]) -> None:
    if reasons - {Shut.STOPPING}:
        log.warning("sockets are not read", reasons=[reason.value for reason in reasons])
    elif not reasons:
        log.info("sockets are read again")
