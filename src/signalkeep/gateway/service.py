"""The gateway process: listens, journals, answers; one new journal for its life.

Order at the end: stop listening, stop reading, let the journal finish, answer what became durable, close. A failed sync
ends the process at once and without a word to any device; the supervisor starts a new one with a new journal.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import AlreadyRunning, EnvironmentFault, SyncFailed
from signalkeep.gateway.intake import Intake, Shut
from signalkeep.gateway.policy import Caps, Policy
from signalkeep.gateway.registry import RegistryFollower
from signalkeep.gateway.stats import GatewayStats
from signalkeep.gateway.tcp import Shared, TcpConnection
from signalkeep.journal.files import FileSystem
from signalkeep.journal.reader import find_journals, segments
from signalkeep.journal.record import TallyEntry
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import Reason
from signalkeep.protocols.contract import TrackerProtocol
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
        self._policy = Policy(
            settings.unknown_devices,
            Caps(
                gateway.unknown_bytes_per_device,
                gateway.unknown_bytes_per_address,
                gateway.unknown_bytes_total,
            ),
        )
        self._intake = Intake(on_change=_log_intake)
        self.writer = JournalWriter.create(
            fs, settings.journal_root, clock=clock, segment_bytes=settings.journal.segment_bytes
        )
        self._shared = Shared(
            writer=self.writer,
            intake=self._intake,
            policy=self._policy,
            clock=clock,
            connections_max=gateway.connections_max,
        )
        self._servers: list[asyncio.Server] = []
        self.stats = GatewayStats()

    @property
    def intake(self) -> Intake:
        return self._intake

    @property
    def connections_open(self) -> int:
        return len(self._shared.connections)

    @property
    def held(self) -> int:
        """Replies that wait for the journal, over all connections."""
        return sum(connection.held for connection in self._shared.connections)

    async def run(self, on_ready: Callable[[dict[str, int]], None]) -> None:
        """Serve until told to stop. `on_ready` gets the ports once devices can connect."""
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
            for task in [stop, *helpers]:
                task.cancel()
            if not journal.done():
                journal.cancel()

    async def _listen(self) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        ports = {}
        host = self._settings.gateway.host
        for name, port in self._settings.gateway.ports.items():
            try:
                server = await loop.create_server(_factory(self._shared, PROTOCOLS[name]), host, port, reuse_port=True)
            except OSError as error:
                raise port_error(name, host, port, error) from error
            self._servers.append(server)
            ports[name] = server.sockets[0].getsockname()[1]
        return ports

    async def _finish(self, journal: asyncio.Task[None]) -> None:
        """Stop reading, let everything appended become durable and be answered, then close."""
        for server in self._servers:
            server.close()
        self._intake.set(Shut.STOPPING, True)
        for connection in list(self._shared.connections):
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
            self._intake.follow_pending(self.writer.pending_bytes)
            if self._intake.open:
                self._close_overdue()

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
        used = sum(size for directory in find_journals(self._fs, root) for _, _, size in segments(self._fs, directory))
        self._intake.follow_disk(
            used_bytes=used,
            cap_bytes=journal.cap_bytes,
            free_bytes=self._fs.free_bytes(root),
            free_min_bytes=journal.disk_free_bytes,
        )

    def _close_overdue(self) -> None:
        now = self._clock.monotonic()
        gateway = self._settings.gateway
        for connection in list(self._shared.connections):
            late = not connection.greeted and now - connection.opened_at > gateway.handshake_s
            if not connection.held and (late or now - connection.heard_at > gateway.idle_s):
                connection.give_up(Reason.TIME_OUT)

    async def _connect(self) -> Connection:
        return await connect_migrated(
            dsn_of(self._settings), application="signalkeep gateway", settings=self._settings.database
        )


def probe_ports(host: str, ports: dict[str, int]) -> None:
    """Raise AlreadyRunning if a port is taken. With SO_REUSEPORT a second gateway would share it without a word."""
    for name, port in ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise port_error(name, host, port, error) from error


def port_error(name: str, host: str, port: int, error: OSError) -> EnvironmentFault:
    """What to tell a person about a port that cannot be had."""
    place = f"{host} port {port} ({name})"
    setting = (
        f"set another with SIGNALKEEP_GATEWAY__PORTS='{{\"{name}\": NUMBER}}' or gateway.ports in the settings file"
    )
    if isinstance(error, PermissionError):
        return EnvironmentFault(f"not allowed to listen on {place}", hint=f"Use a port above 1023: {setting}.")
    if "in use" in str(error).lower():
        return AlreadyRunning(
            f"{place} is in use by another program", hint=f"Is signalkeep running already? Else {setting}."
        )
    return EnvironmentFault(f"cannot listen on {place}: {error.strerror or error}", hint="Check gateway.host.")


def _factory(shared: Shared, protocol: TrackerProtocol) -> Callable[[], TcpConnection]:
    return lambda: TcpConnection(shared, protocol)


def _log_intake(reasons: set[Shut]) -> None:
    if reasons - {Shut.STOPPING}:
        log.warning("sockets are not read", reasons=[reason.value for reason in reasons])
    elif not reasons:
        log.info("sockets are read again")
