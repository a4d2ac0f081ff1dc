"""What docs/broker.md says is so: its tables are compared with the code, its queries and its example are run."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final

import aio_pika
import pytest

from signalkeep import limits
from signalkeep.broker import topology
from signalkeep.broker.link import Link
from signalkeep.broker.stream import Evidence
from signalkeep.sections import BrokerSettings
from signalkeep.store.postgres import Connection
from tests.servers import wait_until_async

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "broker.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(r"^<!-- executed -->\n```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BLOCKS: Final = BLOCK.findall(PAGE)
QUERIES: Final = [text for language, text in BLOCKS if language == "sql"]
(EXAMPLE,) = [text for language, text in BLOCKS if language == "python"]
PATIENCE_S: Final = 30.0


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, cell by cell."""
    section = re.split(rf"^#+ {re.escape(heading)}\n", PAGE, flags=re.MULTILINE)[1]
    rows = re.search(r"^\|.*?(?=^[^|])", section, flags=re.MULTILINE | re.DOTALL)
    assert rows is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[0].splitlines()[2:]]


def test_every_setting_is_there_with_its_default() -> None:
    shown = {row[0].strip("`"): row[1] for row in table("Settings")}
    defaults = {name: field.default for name, field in BrokerSettings.model_fields.items()}
    assert shown == {name: str(value).lower() if value not in ("", None) else "" for name, value in defaults.items()}


def arguments(cell: str) -> dict[str, Any]:
    pairs = re.findall(r"`([\w-]+): ([\w.-]+)`", cell)
    return {name: {"true": True}.get(value, int(value) if value.isdigit() else value) for name, value in pairs}


def test_the_topology_is_what_is_declared() -> None:
    shown: dict[str, dict[str, Any]] = {}
    name = ""
    for row in table("What is declared"):
        name = f"{row[0]} {row[1]}" if row[0] else name
        shown[name] = shown.get(name, {}) | arguments(row[2])
    assert shown == {
        f"`{topology.LANES}` direct exchange, durable": {"alternate-exchange": topology.ASIDE},
        f"`{topology.queue_name(0)}` .. `n-1` quorum queue": topology.LANES_ARGUMENTS,
        f"`{topology.ASIDE}` fanout exchange, durable": {},
        f"`{topology.ASIDE}` quorum queue": topology._KEEPING,
        f"`{topology.SIGNALS}` topic exchange, durable": {},
    }
    assert all(f"`{word}`" in PAGE for word in topology.TRIMMING)


def test_the_evidence_and_the_bounds_are_those_of_the_code() -> None:
    assert [row[0].strip("`") for row in table("What a relay takes as evidence of loss")] == list(Evidence)
    assert f"for {limits.RELAY_STALL_S:.0f} s" in PAGE
    assert f"up to {limits.RELAY_STALL_S_MAX:.0f} s" in PAGE
    assert f"confirmed in {limits.BROKER_PUBLISH_S_MAX:.0f} s" in PAGE
    assert f"first {limits.SET_ASIDE_BYTES_MAX // limits.KIB} KiB, the first {limits.SET_ASIDE_ROWS_MAX:,} of" in PAGE
    assert f"at most {limits.LANES_WITH_BROKER} |" in PAGE
    assert limits.DELIVERIES_BEFORE_CARE == limits.DECODE_ATTEMPTS_MAX == 3, "three, says the page"
    assert limits.CLAIM_SILENT_S == 60, "a minute"
    assert "its queues stand still for a minute, then others take them" in PAGE
    assert limits.RELAY_LOOK_S == 0.25, "four times a second"


@pytest.mark.servers
async def test_its_queries_run_and_its_reasons_are_those_of_the_table(connection: Connection) -> None:
    assert len(QUERIES) == 3
    for query in QUERIES:
        await connection.fetch(query)
    check = await connection.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'set_aside_reason_check'"
    )
    shown = [row[0].strip("`") for row in table("Messages that nobody can use")]
    assert shown == re.findall(r"'(\w+)'", check)


@pytest.mark.servers
async def test_its_example_stores_each_signal_once(vhost_url: str, tmp_path: Path) -> None:
    """In the topology of relays, with a signal that is published twice, and with one of another customer."""
    link = await Link.open(
        BrokerSettings(url=vhost_url, queues=1, management_url="http://127.0.0.1:1"), application="t"
    )
    channel = await link.connection.channel()
    exchange = await channel.get_exchange(topology.SIGNALS, ensure=False)
    (tmp_path / "example.py").write_text(EXAMPLE, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "example.py", cwd=tmp_path, env=os.environ | {"BROKER_URL": vhost_url}
    )
    try:
        await wait_until_async(lambda: _bound(link), PATIENCE_S, what="the example has a queue")
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while len(_received(tmp_path)) < 2 and asyncio.get_running_loop().time() < deadline:
            for number, key in (("1", "Acme.1.-"), ("1", "Acme.1.-"), ("3", "Other.3.-"), ("2", "Acme.2.7000")):
                await exchange.publish(aio_pika.Message(b"{}", message_id=number), key, timeout=PATIENCE_S)
            await asyncio.sleep(0.1)
        assert process.returncode is None, "the example has ended"
        assert _received(tmp_path) == ["1", "2"]
    finally:
        process.terminate()
        await process.wait()
        await link.close()


async def _bound(link: Link) -> bool:
    channel = await link.connection.channel()
    try:
        await channel.declare_queue("acme", passive=True, timeout=PATIENCE_S)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


def _received(folder: Path) -> list[str]:
    database = sqlite3.connect(folder / "signals.db")
    try:
        return [row[0] for row in database.execute("SELECT id FROM received ORDER BY id")]
    finally:
        database.close()
