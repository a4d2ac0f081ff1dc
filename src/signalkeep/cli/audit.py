"""`audit`: prove the sums, or name what is off. Exit code 1 when anything is."""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from signalkeep import config, limits
from signalkeep.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    err,
    out,
    print_json,
    print_rows,
    run_async,
)
from signalkeep.config import Settings
from signalkeep.errors import CallerError
from signalkeep.ingest.triage import record_keys
from signalkeep.integrity.audit import Audit, Report
from signalkeep.integrity.oracle import OracleVerdict, compare
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.reader import JournalReader, find_journals
from signalkeep.journal.record import FrameEntry
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.simulate.oracle import read_oracle, sent_path
from signalkeep.store import journals
from signalkeep.store.postgres import Connection, connect, dsn_of


def audit(
    data: DataOption = None,
    config_file: ConfigOption = None,
    oracle: Annotated[
        Path | None, typer.Option("--oracle", help="what a simulated fleet was told is safe; see `simulate`")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that every record received is stored, a duplicate, or quarantined, and that the rows are really there."""
    settings = config.load(data, config_file)
    if oracle is not None and not oracle.is_file():
        raise CallerError(f"there is no oracle file {oracle}", hint="`signalkeep simulate --oracle FILE` writes one.")
    report, verdict = run_async(_work(settings, oracle, quiet=as_json))
    ok = report.ok and (verdict is None or verdict.ok)
    if as_json:
        print_json({"ok": ok, **msgspec.to_builtins(report), "oracle": msgspec.to_builtins(verdict)})
    else:
        _show(report, verdict, ok=ok)
    if not ok:
        raise typer.Exit(1)


async def _work(settings: Settings, oracle: Path | None, *, quiet: bool) -> tuple[Report, OracleVerdict | None]:
    connection = await connect(dsn_of(settings), application="signalkeep audit", settings=settings.database)
    try:
        if oracle is not None:
            await _drain(connection, settings)
        check = Audit(
            connection,
            fs=LocalFileSystem(),
            host=socket.gethostname(),
            evidence_root=settings.evidence_root,
            record_keys=_record_keys,
            progress=lambda step: None if quiet else err.print(f"checking {step}"),
        )
        report = await check.run()
        if oracle is None:
            return report, None
        sent = sent_path(oracle)
        return report, await compare(connection, read_oracle(oracle), read_oracle(sent) if sent.exists() else [])
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)


async def _drain(connection: Connection, settings: Settings) -> None:
    """Let ingest reach what is durable now: only then can a record be called missing."""
    fs = LocalFileSystem()
    durable = {}
    for directory in find_journals(fs, settings.journal_root):
        reader = JournalReader(fs, directory, evidence_root=settings.evidence_root)
        reader.seek(0)
        while reader.read(limits.INGEST_BATCH_FRAMES_MAX, limits.INGEST_BATCH_BYTES_MAX):
            pass
        durable[reader.journal_id] = reader.durable_seq
    deadline = time.monotonic() + limits.AUDIT_DRAIN_S_MAX
    while time.monotonic() < deadline:
        cursors = {journal.uuid: journal.seq for journal in await journals.expected(connection, socket.gethostname())}
        if all(cursors.get(uuid, 0) >= seq for uuid, seq in durable.items()):
            return
        await asyncio.sleep(0.1)
    err.print("the journals are not all ingested yet: what is still pending counts as missing")


def _record_keys(frame: FrameEntry) -> list[tuple[datetime, int]]:
    return record_keys(frame, PROTOCOLS.get(frame.protocol))


def _show(report: Report, verdict: OracleVerdict | None, *, ok: bool) -> None:
    totals = report.totals
    rows = [{**msgspec.to_builtins(journal), "journal": journal.journal[:8]} for journal in report.journals]
    columns = ("journal", "received", "ingested", "pending", "lost", "ingested_seq", "durable_seq", "on_disk")
    print_rows(rows, columns, as_json=False, empty="no journal yet: no device has sent anything")
    out.print(
        f"records {totals['records']} = stored {totals['stored']} + duplicate {totals['duplicate']} "
        f"+ quarantined {totals['quarantined']}"
        + (f" + suppressed {totals['suppressed']}" if totals["suppressed"] else "")
        + f"; out of quarantine: released {totals['released']}, already stored {totals['released_duplicate']}, "
        f"discarded {totals['discarded']}, replaced {totals['replaced']}"
    )
    if totals["erased"] or totals["erased_quarantine"]:
        out.print(f"erased: {totals['erased']} signals, {totals['erased_quarantine']} rows of quarantine")
    if totals["expired"]:
        out.print(f"expired: {totals['expired']} signals, with their months")
    if verdict is not None:
        out.print(
            f"oracle: {verdict.safe} told safe, {verdict.stored} stored, {verdict.quarantined} in quarantine; "
            f"missing {verdict.missing}, spurious {verdict.spurious}, doubled {verdict.doubled}, "
            f"corrupted {verdict.corrupted}"
            + (f"; erased {verdict.erased}" if verdict.erased else "")
            + (f"; expired {verdict.expired}" if verdict.expired else "")
        )
        for example in verdict.examples:
            out.print(f"  {example}", markup=False)
    for finding in report.findings:
        out.print(f"OFF  {finding.check}: {finding.subject}: {finding.detail}", markup=False)
    out.print("[green]everything adds up[/green]" if ok else "[red]something is off[/red]")
