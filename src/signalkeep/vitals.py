"""What a living role says about itself once a second, and how others read it.

Each role process writes `<data>/run/<role>-<instance>.vitals`: when its event loop last moved, when it last handled
something, and its numbers. The file is replaced as a whole, beside the hot path: the numbers are taken on the loop, the
writing is done in a thread. On a full disk it is written over in place, because that is when people look. Times are of
the machine's monotonic clock, which all its processes share: setting the clock makes nobody look hung.

Nothing here names a device or an address. A file whose process is gone counts as the trace of a death, not as life; one
that cannot be read, or is half written, counts for nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, TypeAlias

import msgspec
import psutil

from signalkeep import __version__, limits
from signalkeep.clock import Clock
from signalkeep.roles import process_lives
from signalkeep.telemetry import get_logger

SUFFIX: Final = ".vitals"
NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}

log = get_logger()


class Histogram(msgspec.Struct):
    """How long something took. `counts` are not cumulative; the last one is beyond all bounds."""

    bounds_s: list[float]
    counts: list[int]
    sum_s: float = 0.0

    @classmethod
    def of(cls, bounds_s: Sequence[float]) -> Histogram:
        return cls(list(bounds_s), [0] * (len(bounds_s) + 1))

    def observe(self, took_s: float) -> None:
        self.counts[bisect_left(self.bounds_s, took_s)] += 1
        self.sum_s += took_s


class GatewayNumbers(msgspec.Struct, kw_only=True, tag="gateway"):
    """Counts since the start of the process; gauges of this moment."""

    connections_open: int
    connections_opened: int
    datagrams: int
    bytes_received: int
    frames: int
    frame_bytes: int
    acknowledged: int
    ack_wait: Histogram
    refusals: dict[str, int]
    held: int  # replies that wait for the journal
    pending_bytes: int
    shut: list[str]  # why sockets are not read; none: they are
    journal: str  # uuid, 32 hex digits
    durable_seq: int


class WorkerNumbers(msgspec.Struct, kw_only=True):
    """What an ingest process that gets its work from a broker counts besides."""

    messages: int  # taken off the queues
    doubles: int  # of these, dropped because the database had them
    holes: int  # of these, dropped because something before them was missing
    set_aside: dict[str, int]  # of these, of no use, by reason
    queues: list[int]  # that it takes now
    in_hand: int  # messages received and not acknowledged
    connected: bool


class IngestNumbers(msgspec.Struct, kw_only=True, tag="ingest"):
    """Counts since the start of the process; `positions`: up to where the database has each journal."""

    records: dict[str, int]  # by outcome: the fields of `store.rows.Written`
    batches: int
    batch_time: Histogram
    retries: int
    driving: int  # journals that have not ended, or are not in the database yet
    positions: dict[str, int]
    worker: WorkerNumbers | None = None
    broken_rules: dict[str, int] = {}  # rules that raised, and how often


class RelayNumbers(msgspec.Struct, kw_only=True, tag="relay"):
    """Counts since the start of the process; gauges of this moment."""

    messages: int  # confirmed by the broker
    message_bytes: int
    entries: int  # in them
    failures: int  # publishes that were not confirmed; each is tried again
    went_back: dict[str, int]  # to the cursor, by the evidence of a loss
    announced: int  # signals published to applications
    confirm_time: Histogram
    window_bytes: int  # sent and not yet in the database
    connected: bool
    blocked: bool  # the broker takes nothing more, for an alarm of its memory or disk
    driving: int
    positions: dict[str, int]


Numbers: TypeAlias = GatewayNumbers | IngestNumbers | RelayNumbers


class Vitals(msgspec.Struct, kw_only=True):
    """One role process. Times are seconds of the machine's monotonic clock."""

    role: str
    instance: int
    pid: int
    version: str
    started_at: datetime
    beat_s: float  # its loop moved
    handled: int = 0  # grows with what it handles
    handled_s: float = 0.0  # when `handled` last grew
    waits: bool = False  # something is there that it should handle
    numbers: Numbers | None = None

    @property
    def name(self) -> str:
        return f"{self.role}-{self.instance}"

    @property
    def lives(self) -> bool:
        """Its process is there, moving or not."""
        return process_lives(self.pid, self.started_at)


class Report(msgspec.Struct):
    """What a role answers when its heart asks."""

    handled: int = 0
    waits: bool = False
    numbers: Numbers | None = None


def path_of(run_root: Path, role: str, instance: int) -> Path:
    return run_root / f"{role}-{instance}{SUFFIX}"


def read_all(run_root: Path) -> list[Vitals]:
    """What there is, by name."""
    found = []
    for path in sorted(run_root.glob(f"*{SUFFIX}")):
        with suppress(OSError, msgspec.DecodeError):
            found.append(msgspec.json.decode(path.read_bytes(), type=Vitals))
    return found


class Heart:
    """Beats while its `async with` block runs, and takes the file away at the end."""

    def __init__(
        self,
        run_root: Path,
        role: str,
        instance: int,
        *,
        clock: Clock,
        ask: Callable[[], Report] = Report,
    ) -> None:
        self._path = path_of(run_root, role, instance)
        self._clock = clock
        self._ask = ask
        now = clock.monotonic()
        self._vitals = Vitals(
            role=role,
            instance=instance,
            pid=os.getpid(),
            version=__version__,
            started_at=datetime.now(UTC),
            beat_s=now,
            handled_s=now,
        )
        self._faults: set[str] = set()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Heart:
        _bury(self._path.parent, self._vitals.role)
        self._task = asyncio.create_task(self._run(), name="heart")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        self._stop.set()
        if self._task is not None:  # a write under way must not bring the file back after we have removed it
            await asyncio.wait([self._task], timeout=limits.STOP_GRACE_S)
            self._task.cancel()
        self._path.unlink(missing_ok=True)

    async def _run(self) -> None:
        while not self._stop.is_set():
            await self.beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.HEARTBEAT_S):
                    await self._stop.wait()

    async def beat(self) -> None:
        """Ask and write, once. Whatever fails here is said once and costs the role nothing."""
        vitals = self._vitals
        vitals.beat_s = self._clock.monotonic()
        try:
            report = self._ask()
        except Exception:
            self._say_once("numbers of this role cannot be taken")
        else:
            if report.handled != vitals.handled:
                vitals.handled_s = vitals.beat_s
            vitals.handled, vitals.waits, vitals.numbers = report.handled, report.waits, report.numbers
        try:
            await asyncio.to_thread(_write, self._path, msgspec.json.encode(vitals))
        except OSError:
            self._say_once("vitals cannot be written")

    def _say_once(self, what: str) -> None:
        if what not in self._faults:
            self._faults.add(what)
            log.exception(what, path=str(self._path))


def _bury(run_root: Path, role: str) -> None:
    """What came instead of a process that was killed removes what that one left."""
    for other in read_all(run_root):
        if other.role == role and not other.lives:
            path_of(run_root, role, other.instance).unlink(missing_ok=True)
    for unfinished in run_root.glob(f"{role}-*{SUFFIX}.*"):
        pid = unfinished.suffix[1:]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            unfinished.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")  # a name of its own: the role's announcement has another
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno not in NO_ROOM:
            raise
        with path.open("r+b") as file:  # its blocks are there already
            file.write(data)
            file.truncate()
