"""`signalkeep run`: one of each role on one machine, each a process of its own, kept running.

A role that dies is started again, with back-off; a crash of one never stops another. Roles hold the read end of a pipe
of ours: if this process is killed they stop by themselves, and the next `run` finds the ports free. One data directory
has one supervisor, by a lock that the kernel drops with us: no stale file ever has to be deleted by hand.
Order at the end: the fleet of a demo, gateways, ingest, the monitor, PostgreSQL. A role that hangs is named, in the log
and by the monitor, and is not killed; if a service manager wants a sign of life from us, it gets none meanwhile.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.config import Settings
from signalkeep.errors import AlreadyRunning, EnvironmentFault, SignalkeepError
from signalkeep.retry import Backoff
from signalkeep.roles import RoleFile, running_roles
from signalkeep.store.embedded import EmbeddedPostgres
from signalkeep.systemd import ServiceManager
from signalkeep.telemetry import get_logger
from signalkeep.vitals import Heart, read_all

log = get_logger()


class Role(msgspec.Struct):
    """A child process that must be there. `command`: what follows `signalkeep`."""

    name: str
    instance: int
    command: Sequence[str]
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    last_exit: int | None = None
    stopping: bool = False


class Supervisor:
    """Starts, watches, restarts and stops the roles of one data directory."""

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[Role],
        *,
        clock: Clock,
        stop: asyncio.Event,
        probe_ports: Callable[[], None],
        service_manager: ServiceManager,
    ) -> None:
        self._settings = settings
        self._roles = list(roles)
        self._clock = clock
        self._stop = stop
        self._probe_ports = probe_ports
        self._manager = service_manager
        self._postgres = EmbeddedPostgres(settings.data, settings=settings.database) if settings.embedded else None
        self._postgres_restarts = 0
        self._file = RoleFile(settings.run_root, "supervisor", 0)
        self._hung_before: list[str] = []
        self._told_ready = False

    async def run(self, on_ready: Callable[[list[str]], None]) -> None:
        """Until told to stop. `on_ready` gets the roles that still wait.

        Raises AlreadyRunning, or what keeps the first start from succeeding.
        """
        lock = take_lock(self._settings.run_root)
        try:
            async with Heart(self._settings.run_root, "supervisor", 0, clock=self._clock):
                await self._run_locked(on_ready)
        finally:
            self._file.gone()
            os.close(lock)

    async def _run_locked(self, on_ready: Callable[[list[str]], None]) -> None:
        pipe_read, pipe_write = os.pipe()
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._wait_for_orphans()
            self._probe_ports()
            tasks += [
                asyncio.create_task(self._keep(role, pipe_read), name=f"{role.name} {role.instance}")
                for role in self._roles
            ]
            if self._postgres is not None:  # beside the others: devices do not wait for its recovery
                tasks.append(asyncio.create_task(self._keep_postgres(self._postgres), name="postgres"))
            tasks.append(asyncio.create_task(self._feed_watchdog(), name="watchdog"))
            self._announce()
            tasks.append(asyncio.create_task(self._tell_when_ready(on_ready), name="ready"))
            stop = asyncio.create_task(self._stop.wait(), name="stop")
            done, _ = await asyncio.wait([stop, *tasks[:-1]], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            self._manager.tell("STOPPING=1")
            await self._shut_down(tasks)
            os.close(pipe_write)
            os.close(pipe_read)

    async def _keep(self, role: Role, pipe_read: int) -> None:
        backoff = Backoff(limits.RESTART_S_MIN, limits.RESTART_S_MAX)
        while not role.stopping:
            started_at = self._clock.monotonic()
            try:
                role.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "signalkeep", *role.command, "--parent-fd", str(pipe_read)),
                    pass_fds=[pipe_read],
                    start_new_session=True,  # Ctrl-C is for us: we stop the roles in their order
                )
                role.last_exit = await role.process.wait()
            except OSError as error:  # no memory or no process to be had just now
                log.error("role cannot be started", name=role.name, error=str(error))
            if role.stopping:
                return
            role.restarts += 1
            if self._clock.monotonic() - started_at > limits.RESTART_S_MAX:
                backoff.reset()
            wait_s = backoff.next_s()
            log.warning("role ended, starting it again", name=role.name, exit=role.last_exit, in_s=round(wait_s, 1))
            self._announce()
            await asyncio.sleep(wait_s)

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        """Start it and keep it. A server that never ran here must start at once; one that did is tried for ever."""
        backoff = Backoff(limits.RESTART_S_MIN, limits.RESTART_S_MAX)
        ran_before = any((self._settings.data / "postgres").glob("*/PG_VERSION"))
        while True:
            try:
                await postgres.start()
            except SignalkeepError as error:
                if not ran_before:
                    raise
                log.error("PostgreSQL does not start", error=error.message, hint=error.hint)
            else:
                ran_before = True
                backoff.reset()
                self._announce()
                code = await postgres.wait()
                self._postgres_restarts += 1
                log.warning("PostgreSQL ended, starting it again", exit=code)
                self._announce()
            await asyncio.sleep(backoff.next_s())

    async def _feed_watchdog(self) -> None:
        """Tell the service manager that we move, as long as every role that lives does too.

        A role that hangs (a process that is there and does not beat) cannot be mended from here without guessing: the
        manager starts the whole core again when it has not heard of us for long enough. A role that died is no reason:
        it is started again already.
        """
        while True:
            hung = self._hung()
            if self._manager.watchdog_s and self._told_ready and not hung:
                self._manager.tell("WATCHDOG=1")
            if hung != self._hung_before:
                self._hung_before = hung
                if hung:
                    log.error("roles hang: their loops have stopped", roles=hung)
                else:
                    log.info("roles move again")
            await asyncio.sleep(min(limits.HEARTBEAT_S, self._manager.watchdog_s / 3 or limits.HEARTBEAT_S))

    def _hung(self) -> list[str]:
        now, after_s = self._clock.monotonic(), self._settings.monitor.hung_after_s
        return [
            vitals.name
            for vitals in read_all(self._settings.run_root)
            if vitals.role != "supervisor" and now - vitals.beat_s > after_s and vitals.lives
        ]

    async def _tell_when_ready(self, on_ready: Callable[[list[str]], None]) -> None:
        """As soon as every role is ready; after a while, say which ones are not."""
        wanted = {(role.name, role.instance) for role in self._roles}
        deadline = self._clock.monotonic() + limits.READY_S_MAX
        while True:
            running = {(state.role, state.instance) for state in running_roles(self._settings.run_root)}
            if wanted <= running or self._clock.monotonic() > deadline:
                self._announce()
                self._told_ready = True
                on_ready(sorted(name for name, _ in wanted - running))
                return
            await asyncio.sleep(0.05)

    def _announce(self) -> None:
        restarts = {f"{role.name}-{role.instance}": role.restarts for role in self._roles}
        postgres = None
        if self._postgres is not None:
            restarts["postgres-0"] = self._postgres_restarts
            postgres = self._postgres.pid
        self._file.ready(restarts=restarts, postgres_pid=postgres)

    async def _wait_for_orphans(self) -> None:
        """Roles of a supervisor that was killed stop by themselves: give them the time."""
        deadline = self._clock.monotonic() + 2 * limits.STOP_GRACE_S
        while True:
            left = [state for state in running_roles(self._settings.run_root) if state.role != "supervisor"]
            if not left:
                return
            if self._clock.monotonic() > deadline:
                named = ", ".join(f"{state.role} (pid {state.pid})" for state in left)
                raise AlreadyRunning(
                    f"still running in {self._settings.data}: {named}",
                    hint="Stop these processes, then try again.",
                )
            await asyncio.sleep(0.05)

    async def _shut_down(self, tasks: list[asyncio.Task[None]]) -> None:
        for role in self._roles:
            role.stopping = True
        for name in dict.fromkeys(role.name for role in reversed(self._roles)):
            await asyncio.gather(*(_end(role) for role in self._roles if role.name == name))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._postgres is not None:
            await self._postgres.stop()


async def _end(role: Role) -> None:
    """SIGTERM, and SIGKILL if that is not heard: what is acknowledged is safe either way."""
    process = role.process
    if process is None or process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(3 * limits.STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        log.error("role did not stop, killing it", name=role.name, pid=process.pid)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def take_lock(run_root: Path) -> int:
    """The lock of a data directory; held until its descriptor closes. Raises AlreadyRunning."""
    try:
        run_root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run_root / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            f"{run_root} cannot be used: {error.strerror}", hint="Choose another data directory with --data."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise AlreadyRunning(
            f"signalkeep runs already on {run_root.parent}",
            hint="`signalkeep status` shows it. For a second one choose another --data and other ports.",
        ) from error
    return descriptor
