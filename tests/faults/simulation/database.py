"""A real PostgreSQL that works in step with virtual time, behind connections that can fail at every call.

While the server works, virtual time stands still; so a history does not depend on how fast it is. What it decides is
decided by itself: keys, transactions, partitions, constraints. Added are the faults of the way there: a call that never
arrives, one whose answer is lost, a commit of which nobody knows the outcome, an outage, and a record that the server
will not have. Transactions of different connections follow each other, since two that wait for each other's locks could
not both stand still: that locks order them is the business of tests beside this one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

import asyncpg
import uvloop

from signalkeep import limits
from signalkeep.errors import DatabaseUnavailable
from signalkeep.sections import DatabaseSettings
from signalkeep.store.claims import COUNT_WORKERS
from signalkeep.store.postgres import connect
from tests.faults.simulation.process import Dead, Process
from tests.faults.simulation.units import REJECTED_CODES

T = TypeVar("T")
CALL_S: Final = (0.002, 0.03)
REAL_CALL_S_MAX: Final = 60.0
UNSAFE: Final = DatabaseSettings.model_validate({"allow_unsafe": True})
TERMINATED_POLLS_MAX: Final = 20_000
LOST_BEFORE, LOST_AFTER, DEADLOCK = "call never arrives", "answer lost", "deadlock"
HANGS, KILLED = "no answer", "killed"


class Server:
    """Runs the driver on a fast loop of its own, for as long as something is asked, while ours stands still."""

    def __init__(self, dsn: str) -> None:
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._askers: dict[str, asyncpg.Connection[Any]] = {}
        self._spare: dict[str, list[asyncpg.Connection[Any]]] = {}
        self._watcher = self.do(connect(dsn, application="watcher", settings=UNSAFE))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        ours = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, REAL_CALL_S_MAX))
        finally:
            asyncio._set_running_loop(ours)

    def connect(self, dsn: str) -> asyncpg.Connection[Any]:
        """A session that nobody has used, or one that is as if nobody had: a new one takes the server long."""
        spare = self._spare.setdefault(dsn, [])
        return spare.pop() if spare else self.do(connect(dsn, application="simulated", settings=UNSAFE))

    def end(self, dsn: str, connection: asyncpg.Connection[Any]) -> None:
        """For the server it is over: its locks are free, its work undone. Without work to undo, the session is kept."""
        if connection.is_in_transaction():
            self.do(self._terminate(connection))
        elif not connection.is_closed():
            self.do(self._discard(connection))
            self._spare[dsn].append(connection)

    async def _discard(self, connection: asyncpg.Connection[Any]) -> None:
        await connection.execute("DISCARD ALL")
        await connection.reload_schema_state()  # forgets the statements that were prepared

    async def _terminate(self, connection: asyncpg.Connection[Any]) -> None:
        pid = connection.get_server_pid()
        connection.terminate()
        for _ in range(TERMINATED_POLLS_MAX):
            if not await self._watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
                return
            await asyncio.sleep(0.0005)
        raise TimeoutError("the server keeps a connection that was broken off")

    def ask(self, dsn: str, query: str, *arguments: Any) -> list[Any]:
        """One statement, with no fault on the way."""
        return self.do(self._ask(dsn, query, *arguments))

    async def _ask(self, dsn: str, query: str, *arguments: Any) -> list[Any]:
        if dsn not in self._askers:
            self._askers[dsn] = await connect(dsn, application="checker", settings=UNSAFE)
        return list(await self._askers[dsn].fetch(query, *arguments))

    def close(self) -> None:
        spare = (connection for connections in self._spare.values() for connection in connections)
        for connection in (self._watcher, *self._askers.values(), *spare):
            self.do(connection.close(timeout=10))
        self._loop.close()


class Database:
    """One database of the server, as the simulated core sees it."""

    def __init__(self, server: Server, dsn: str, rng: random.Random) -> None:
        self.server = server
        self.dsn = dsn
        self.rng = rng
        self.call_s = CALL_S
        self.up = True
        self.read_only = False
        self.fault_rate = 0.0
        self.claims_help = True  # not behind a pooler that gives each transaction another session
        self.on_fetched: Callable[[str, tuple[Any, ...]], None] = lambda query, arguments: None
        self.counts: dict[str, int] = {}
        self.the_fault = (0, "")  # the call with this number fails in this way
        self.calls = 0
        self._open: list[Connection] = []
        self._turn = asyncio.Lock()

    async def connect(self, process: Process) -> Connection:
        """Raises DatabaseUnavailable."""
        await self.arrive(process, "connect")
        fault = self.fault()
        if fault == KILLED:
            process.kill()
            process.check()
        if fault:
            self.count(fault)
            raise DatabaseUnavailable(f"made up: {fault}")
        connection = Connection(self, process, self.server.connect(self.dsn))
        self._open.append(connection)
        process.at_death.append(connection.terminate)
        return connection

    def go_down(self) -> None:
        """Every connection breaks; nobody can connect."""
        self.up = False
        for connection in list(self._open):
            connection.terminate()

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        if connection in self._open:
            self._open.remove(connection)

    async def arrive(self, process: Process, what: str) -> None:
        """The way there. Raises as the driver would, or Dead."""
        process.check()
        await asyncio.sleep(self.rng.uniform(*self.call_s))
        process.check()
        self.calls += 1
        if not self.up:
            if what == "connect":
                raise DatabaseUnavailable("the simulated database is away")
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def fault(self) -> str:
        """What goes wrong with this call; "" for nothing."""
        if self.calls == self.the_fault[0]:
            self.count("the one fault")
            return self.the_fault[1]
        if self.rng.random() < self.fault_rate:
            return self.rng.choice((LOST_BEFORE, LOST_AFTER, DEADLOCK))
        return ""

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    async def take_turn(self) -> None:
        await self._turn.acquire()

    def end_turn(self) -> None:
        self._turn.release()


class Connection:
    """As much of asyncpg's connection as the core uses."""

    def __init__(self, database: Database, process: Process, real: asyncpg.Connection[Any]) -> None:
        self._database, self._process, self._real = database, process, real
        self._has_turn = self._closed = False
        self.depth = 0  # of transactions

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        rows = await self._call("fetch", query, *args, **options)
        self._database.on_fetched(query, args)
        return rows

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        return await self._call("fetchrow", query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        if not self._database.claims_help:
            if "pg_try_advisory_lock($1, $2)" in query:
                return True
            if query == COUNT_WORKERS:
                return 1  # every worker has every queue
        return await self._call("fetchval", query, *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        return await self._call("execute", query, *args, **options)

    async def executemany(self, query: str, args: Any, **options: Any) -> Any:
        return await self._call("executemany", query, args, **options)

    async def copy_records_to_table(self, table: str, *, records: Any, columns: Any) -> Any:
        self._refuse(records)
        return await self._call("copy_records_to_table", table, records=records, columns=columns)

    def transaction(self, **options: Any) -> Transaction:
        return Transaction(self, self._real.transaction(**options))

    def is_closed(self) -> bool:
        return self._closed

    def is_in_transaction(self) -> bool:
        return self.depth > 0

    async def close(self, *, timeout: float | None = None) -> None:
        del timeout
        self.terminate()
        await asyncio.sleep(0)

    def terminate(self) -> None:
        """Break off; an open transaction is rolled back."""
        if not self._closed:
            self._closed = True
            self._database.server.end(self._database.dsn, self._real)
        self._database.forget(self)
        self._end_turn()

    async def step(self, name: str, *arguments: Any, **options: Any) -> Any:
        """One call, on its way there and back. Raises what the driver raises."""
        database = self._database
        await database.arrive(self._process, name)
        fault = database.fault()
        if fault == LOST_BEFORE:
            database.count(fault)
            self._lost()
        if fault == HANGS:
            await asyncio.sleep(limits.DATABASE_COMMAND_S_MAX)
            self.terminate()
            raise TimeoutError
        if fault == KILLED:
            self._process.kill()
            self._process.check()
        if fault == DEADLOCK and self.depth:
            database.count(fault)
            raise asyncpg.DeadlockDetectedError("made up: deadlock detected")
        if self._closed:  # its session may be another's by now
            raise asyncpg.InterfaceError("connection is closed")
        result = database.server.do(_call(self._real, name, *arguments, **options))
        if fault == LOST_AFTER:
            database.count("commit of unknown outcome" if name == "commit" else fault)
            self._lost()
        await asyncio.sleep(database.rng.uniform(*database.call_s))
        self._process.check()
        return result

    async def begin_turn(self) -> None:
        if not self._has_turn:
            await self._database.take_turn()
            self._has_turn = True
            if self._closed:
                self._end_turn()
                self._process.check()
                raise asyncpg.InterfaceError("connection is closed")

    def end_turn(self) -> None:
        if not self.depth:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._database.end_turn()

    async def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name == "fetch":
            self._refuse(zip(*(one for one in arguments[1:] if isinstance(one, (list, tuple))), strict=False))
        await self.begin_turn()
        try:
            return await self.step(name, *arguments, **options)
        finally:
            self.end_turn()

    def _lost(self) -> None:
        self.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _refuse(self, rows: Any) -> None:
        """The server will not have some records, for a reason that no check of ours foresees."""
        for row in rows:
            if len(row) > 12 and row[12] in REJECTED_CODES.values():
                self._database.count("record rejected by the database")
                raise asyncpg.DataError("made up: this record cannot be stored")


class Transaction:
    """A transaction, or a savepoint within one."""

    def __init__(self, connection: Connection, real: Any) -> None:
        self._connection, self._real = connection, real

    async def start(self) -> None:
        await self._connection.begin_turn()
        try:
            await self._connection.step("start", self._real)
        except BaseException:
            self._connection.terminate()  # it may have begun
            raise
        self._connection.depth += 1

    async def commit(self) -> None:
        await self._finish("commit")

    async def rollback(self) -> None:
        await self._finish("rollback")

    async def _finish(self, how: str) -> None:
        """If it is not known to be over, its locks must go with the connection: others have their turn now."""
        try:
            await self._connection.step(how, self._real)
        except BaseException:
            self._connection.terminate()
            raise
        finally:
            self._connection.depth -= 1
            self._connection.end_turn()

    async def __aenter__(self) -> Transaction:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Dead):
            return
        await (self.commit() if kind is None else self.rollback())


async def _call(real: asyncpg.Connection[Any], name: str, *arguments: Any, **options: Any) -> Any:
    target = real
    if name in ("start", "commit", "rollback"):
        target, arguments = arguments[0], arguments[1:]
    return await getattr(target, name)(*arguments, **options)
