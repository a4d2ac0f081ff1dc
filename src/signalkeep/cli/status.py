"""`status`: what runs, how far it is, and what is wrong, on one page.

It works whatever is missing: roles come from their announcements, journals from their files, sums from the database
if that answers. Exit code 1 if something is wrong that a person has to look at. Reading it changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import psutil
import typer

from signalkeep import __version__, config, limits
from signalkeep.broker.address import redact as redact_broker
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, out, print_json, print_rows, run_async
from signalkeep.cli.status_services import show_services
from signalkeep.clock import Clock, SystemClock
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault
from signalkeep.journal.files import FileSystem, LocalFileSystem
from signalkeep.journal.reader import JournalReader, find_journals, segments
from signalkeep.roles import RoleState, running_roles
from signalkeep.store import journals, push_back, queries
from signalkeep.store.journals import ExpectedJournal
from signalkeep.store.postgres import connect, dsn_of, redact
from signalkeep.store.schema import HEAD, schema_version
from signalkeep.store.services import Overview, overview
from signalkeep.vitals import IngestNumbers, RelayNumbers, Vitals, read_all

FINDINGS_SHOWN: Final = 5
SERVICES_SHOWN: Final = 8
JOURNAL_COLUMNS: Final = ("journal", "live", "size", "durable_seq", "ingested_seq", "backlog")


class RoleStatus(msgspec.Struct):
    """A process that lives now."""

    role: str
    instance: int
    pid: int
    ports: dict[str, int]
    uptime_s: float
    restarts: int


class JournalStatus(msgspec.Struct):
    """A journal of this machine. None: it cannot be known now. `refused`: why this program cannot read it."""

    journal: str
    bytes: int
    live: bool  # its gateway writes it
    durable_seq: int | None  # None: its files are gone
    ingested_seq: int | None
    backlog_entries: int | None
    refused: str = ""


class DatabaseStatus(msgspec.Struct):
    """The database. `error`: why it cannot be used, with what to do."""

    dsn: str
    reachable: bool = False
    version: str | None = None
    schema: str | None = None
    error: str | None = None


class BrokerStatus(msgspec.Struct):
    """RabbitMQ, as the roles of this machine see it."""

    url: str
    relays_connected: int
    relays: int
    workers_connected: int
    workers: int
    blocked: bool  # it takes nothing, for an alarm of its memory or disk
    window_bytes: int  # sent and not in the database
    queues: list[int]  # that workers here take
    set_aside: int  # messages of no use, since the workers started

    @property
    def fault(self) -> str:
        if self.blocked:
            return "it takes nothing now, for an alarm of its memory or disk"
        away = self.relays - self.relays_connected + self.workers - self.workers_connected
        return f"{away} of {self.relays + self.workers} roles have no connection to it" if away else ""


class Status(msgspec.Struct):
    """The whole page. `missing`: roles that should run and do not; `hung`: those that are there and do not move.

    `waiting`: those that run and have not found what they need yet, such as the database or the broker.
    """

    verdict: str
    ok: bool
    running: bool
    data: str
    roles: list[RoleStatus]
    missing: list[str]
    hung: list[str]
    waiting: list[str]
    database: DatabaseStatus
    journals: list[JournalStatus]
    broker: BrokerStatus | None = None
    counts: dict[str, Any] | None = None
    quality: dict[str, int] | None = None
    findings: int | None = None
    latest_findings: list[dict[str, Any]] = []  # msgspec copies it for each page
    services: Overview | None = None  # None: the database does not say


def status(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Roles, database, journals with their backlog, sums and findings. Exit code 1 if something is wrong."""
    settings = config.load(data, config_file)
    page = run_async(look(settings, LocalFileSystem()))
    if as_json:
        print_json(page)
    else:
        _show(page)
    if not page.ok:
        raise typer.Exit(1)


async def look(settings: Settings, fs: FileSystem) -> Status:
    """Everything that can be known now."""
    states = running_roles(settings.run_root)
    roles, absent = roles_of(states, datetime.now(UTC))
    living = {vitals.name for vitals in read_all(settings.run_root) if vitals.lives}
    hung = hung_roles(settings, SystemClock())
    page = Status(
        verdict="",
        ok=False,
        running=any(role.role != "postgres" for role in roles),
        data=str(settings.data),
        roles=roles,
        missing=[name for name in absent if name not in living],
        hung=hung,
        waiting=[name for name in absent if name in living],
        database=DatabaseStatus(redact(dsn_of(settings))),
        journals=[],
    )
    page.broker = broker_of(settings, read_all(settings.run_root)) if settings.broker.enabled else None
    expected = await _ask(settings, page)
    page.journals = journals_of(settings, fs, expected)
    page.ok, page.verdict = _verdict(page, config.data_option(settings))
    return page


def roles_of(states: Sequence[RoleState], now: datetime) -> tuple[list[RoleStatus], list[str]]:
    """The processes that live, the embedded server among them, and the names of those that should."""
    detail = next((state.detail for state in states if state.role == "supervisor"), {})
    restarts: dict[str, int] = detail.get("restarts", {})
    roles = [
        RoleStatus(
            role=state.role,
            instance=state.instance,
            pid=state.pid,
            ports=state.ports,
            uptime_s=round((now - state.started_at).total_seconds(), 1),
            restarts=restarts.get(f"{state.role}-{state.instance}", 0),
        )
        for state in states
    ]
    started_at = _postgres_started_at(detail.get("postgres_pid"))
    if started_at is not None:
        uptime_s = round(now.timestamp() - started_at, 1)
        roles.append(RoleStatus("postgres", 0, detail["postgres_pid"], {}, uptime_s, restarts.get("postgres-0", 0)))
    living = {f"{role.role}-{role.instance}" for role in roles}
    return roles, sorted(restarts.keys() - living)


def hung_roles(settings: Settings, clock: Clock) -> list[str]:
    """Roles whose loops have stopped, by name."""
    late_s = clock.monotonic() - settings.monitor.hung_after_s
    return [vitals.name for vitals in read_all(settings.run_root) if vitals.beat_s < late_s and vitals.lives]


def broker_of(settings: Settings, vitals: Sequence[Vitals]) -> BrokerStatus:
    """From what living relays and workers say of themselves."""
    numbers = [one.numbers for one in vitals if one.lives]
    relays = [one for one in numbers if isinstance(one, RelayNumbers)]
    workers = [one.worker for one in numbers if isinstance(one, IngestNumbers) and one.worker is not None]
    return BrokerStatus(
        url=redact_broker(settings.broker.resolved_url()),
        relays_connected=sum(relay.connected for relay in relays),
        relays=len(relays),
        workers_connected=sum(worker.connected for worker in workers),
        workers=len(workers),
        blocked=any(relay.blocked for relay in relays),
        window_bytes=sum(relay.window_bytes for relay in relays),
        queues=sorted(queue for worker in workers for queue in worker.queues),
        set_aside=sum(sum(worker.set_aside.values()) for worker in workers),
    )


def _postgres_started_at(pid: int | None) -> float | None:
    """Seconds since 1970; None if no PostgreSQL has this pid."""
    try:
        process = psutil.Process(pid) if pid else None
        return process.create_time() if process and process.name().startswith("postgres") else None
    except psutil.Error:
        return None


async def _ask(settings: Settings, page: Status) -> list[ExpectedJournal] | None:
    """Fill in what the database knows; returns the journals that it expects here, None if it does not say."""
    database = page.database
    try:
        connection = await connect(dsn_of(settings), application="signalkeep status", settings=settings.database)
        try:
            with queries.plain_faults(connection):
                database.version = await queries.server_version(connection)
                database.schema = await schema_version(connection)
                database.reachable = True
                if database.schema != HEAD:
                    database.error = f"its schema is {database.schema or 'not there yet'}, needed is {HEAD}"
                    return None
                page.counts = await queries.counts(connection)
                given = settings.push_back.attempts_max
                page.counts["quarantine_given_up"] = await push_back.given_up(connection, __version__, given)
                page.quality = await queries.quality(connection)
                page.findings, latest = await queries.latest_findings(connection, FINDINGS_SHOWN)
                page.latest_findings = [dict(row) for row in latest]
                page.services = await overview(connection, SERVICES_SHOWN)
                return await journals.expected(connection, socket.gethostname())
        finally:
            await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)
    except EnvironmentFault as fault:
        database.reachable = False
        database.error = f"{fault.message}. {fault.hint}"
        return None


def journals_of(settings: Settings, fs: FileSystem, expected: list[ExpectedJournal] | None) -> list[JournalStatus]:
    """Every journal on the disk, oldest first as far as the database tells, then those whose files are gone."""
    try:
        return _journals_of(settings, fs, expected)
    except OSError as error:
        raise EnvironmentFault(
            f"the journals in {settings.journal_root} cannot be read: {error.strerror}",
            hint="Ask as the user that signalkeep runs as.",
        ) from error


def _journals_of(settings: Settings, fs: FileSystem, expected: list[ExpectedJournal] | None) -> list[JournalStatus]:
    by_uuid = {journal.uuid: journal for journal in expected or ()}
    order = {uuid: place for place, uuid in enumerate(by_uuid)}
    found: dict[UUID, JournalStatus] = {}
    for directory in find_journals(fs, settings.journal_root):
        known = by_uuid.get(UUID(directory.name))
        ingested_seq = None if expected is None else known.seq if known else 0
        found[UUID(directory.name)] = _journal(fs, directory, settings.evidence_root, ingested_seq)
    for uuid, journal in by_uuid.items():
        if uuid not in found and not journal.directory.is_dir():
            missing = max(0, journal.durable_seq - journal.seq)
            backlog = missing if missing or journal.ended else None  # None: there may have been more
            found[uuid] = JournalStatus(str(uuid), 0, False, None, journal.seq, backlog)
    return [found[uuid] for uuid in sorted(found, key=lambda uuid: order.get(uuid, len(order)))]


def _journal(fs: FileSystem, directory: Path, evidence_root: Path, ingested_seq: int | None) -> JournalStatus:
    """Read from its last segment on, or from the cursor: what lies before is durable."""
    files = segments(fs, directory)
    reader = JournalReader(fs, directory, evidence_root=evidence_root)
    reader.seek(max(files[-1][0] - 1 if files else 0, ingested_seq or 0))
    while reader.read(limits.INGEST_BATCH_FRAMES_MAX, limits.INGEST_BATCH_BYTES_MAX):
        pass
    durable_seq = reader.durable_seq
    return JournalStatus(
        journal=str(reader.journal_id),
        bytes=sum(size for _, _, size in files),
        live=reader.alive,
        durable_seq=durable_seq,
        ingested_seq=ingested_seq,
        backlog_entries=None if ingested_seq is None else max(0, durable_seq - ingested_seq),
        refused=reader.refused,
    )


def _verdict(page: Status, option: str) -> tuple[bool, str]:
    """Whether all is well, and the one sentence to read first."""
    vanished = [journal for journal in page.journals if journal.durable_seq is None]
    gone = [journal.journal for journal in vanished if journal.backlog_entries != 0]
    if gone:
        return False, f"journals are gone with entries that were not ingested, or may not be: {', '.join(gone)}"
    refused = [journal.refused for journal in page.journals if journal.refused]
    if refused:
        return False, f"a newer signalkeep is needed to ingest a journal: {refused[0]}"
    if not page.running:
        return False, f"signalkeep is not running on {page.data}; start it with: signalkeep run{option}"
    if page.missing:
        return False, f"not running now: {', '.join(page.missing)}; the supervisor starts them again"
    if page.hung:
        return False, f"hanging: {', '.join(page.hung)}; the process is there and does not move"
    if page.database.error:
        return False, (
            "the database cannot be used, devices are acknowledged all the same until the journal's cap: "
            f"{page.database.error}"
        )
    if page.broker is not None and page.broker.fault:
        return False, (
            "the broker cannot be used, devices are acknowledged all the same until the journal's cap: "
            f"{page.broker.fault}"
        )
    if page.waiting:
        return False, f"not ready yet: {', '.join(page.waiting)}; they run, and the log says what they wait for"
    backlog = sum(journal.backlog_entries or 0 for journal in page.journals)
    if backlog:
        return True, f"signalkeep runs; {backlog} journal entries are on their way into the database"
    return True, "signalkeep runs; everything acknowledged is in the database"


def _show(page: Status) -> None:
    out.print(page.verdict, style="green" if page.ok else "red", markup=False)
    roles = [
        {
            **msgspec.to_builtins(role),
            "up": _duration(role.uptime_s),
            "ports": ", ".join(f"{name} {port}" for name, port in role.ports.items()),
        }
        for role in page.roles
    ]
    if roles:
        out.print()
        print_rows(roles, ("role", "instance", "pid", "up", "restarts", "ports"), as_json=False, empty="")
    database = page.database
    version = f"{database.dsn}: PostgreSQL {database.version}, schema {database.schema}"
    out.print(f"\ndatabase  {database.error or version}", markup=False)
    if page.broker is not None:
        out.print(f"broker    {_broker_line(page.broker)}", markup=False)
    if page.journals:
        out.print()
        print_rows([_cells(journal) for journal in page.journals], JOURNAL_COLUMNS, as_json=False, empty="")
    if page.counts is not None:
        _show_counts(page.counts)
    if page.quality and any(page.quality.values()):
        said = page.quality
        text = f"{said['devices']} devices with findings, {said['due']} to be checked, {said['days_waiting']} days wait"
        out.print(f"quality   {text} (signalkeep scores)", markup=False)
    if page.services is not None and page.services.services:
        show_services(page.services)
    for finding in page.latest_findings:
        out.print(f"finding   {finding['kind']}: {finding['subject']}: {finding['detail']}", markup=False)
    if (page.findings or 0) > len(page.latest_findings):
        out.print(f"findings  {page.findings} in all, in the table finding (signalkeep psql)", markup=False)


def _broker_line(broker: BrokerStatus) -> str:
    said = [broker.url]
    if broker.relays:
        said.append(f"sent and not in the database {broker.window_bytes / limits.MIB:.1f} MiB")
    if broker.workers:
        said.append(f"queues taken here {', '.join(map(str, broker.queues)) or 'none'}")
    if broker.set_aside:
        said.append(f"messages set aside {broker.set_aside} (table set_aside)")
    return "; ".join([*said, broker.fault] if broker.fault else said)


def _show_counts(counts: Mapping[str, Any]) -> None:
    out.print(
        f"\nrecords   {counts['records']} = stored {counts['stored']} + duplicate {counts['duplicate']} "
        f"+ quarantined {counts['quarantined']}, of which {counts['quarantine_open']} still wait"
        + (f" ({counts['quarantine_given_up']} tried too often)" if counts["quarantine_given_up"] else "")
        + (f"; + suppressed {counts['suppressed']} (erased before)" if counts["suppressed"] else "")
    )
    if counts["devices"]:
        out.print(f"devices   {', '.join(f'{status} {count}' for status, count in counts['devices'].items())}")
    if counts["refused"]:
        out.print(f"refused   {', '.join(f'{reason} {count}' for reason, count in counts['refused'].items())}")


def _cells(journal: JournalStatus) -> dict[str, Any]:
    files_gone = journal.durable_seq is None
    return {
        "journal": journal.journal,
        "live": journal.live,
        "size": "files gone" if files_gone else f"{journal.bytes / limits.MIB:.1f} MiB",
        "durable_seq": journal.durable_seq,
        "ingested_seq": "unknown" if journal.ingested_seq is None else journal.ingested_seq,
        "backlog": "unknown" if journal.backlog_entries is None else journal.backlog_entries,
    }


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 2:
        return f"{days:.0f} d"
    if hours >= 2:
        return f"{hours:.0f} h"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
