"""What a whole core writes: JSON and nothing else if asked for, no secret anywhere, and no flood by strangers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from signalkeep.roles import running_roles
from tests.core import Core
from tests.servers import PostgresServer, free_port, run_sync, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SECRET = "correct-horse-battery"


@pytest.fixture
def secret_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """Of a fresh database; the server asks for no password, so this one is accepted and must never be seen."""
    dsn = run_sync(postgres_server.create_database())
    assert "signalkeep@/" in dsn
    yield dsn.replace("signalkeep@/", f"signalkeep:{SECRET}@/")
    run_sync(postgres_server.drop_database(dsn))


def pages(core: Core) -> str:
    """Everything that the monitor tells."""
    (port,) = [role.ports["monitor"] for role in running_roles(core.data / "run") if role.role == "monitor"]
    found = []
    for path in ("/livez?verbose", "/readyz?verbose", "/metrics"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path)
        found.append(connection.getresponse().read().decode())
        connection.close()
    return "".join(found)


def everything(core: Core) -> str:
    """What commands print about a core, what it logs, and what stands in its files for other processes."""
    commands = (
        ("status",), ("status", "--json"), ("doctor",), ("doctor", "--json"), ("config", "show", "--origin"),
        ("config", "show", "--json"), ("audit",), ("devices", "list"), ("config", "check", str(core.data)),
    )  # fmt: skip
    said = [core.output(*command) for command in commands]
    files = [path.read_bytes().decode(errors="replace") for path in (core.data / "run").iterdir() if path.is_file()]
    return "".join([*said, *files, pages(core), core.log_text()])


def test_the_password_of_the_database_is_nowhere(secret_dsn: str) -> None:
    with Core(database__dsn=secret_dsn, log__level="debug") as core:
        assert core.talk("json", b'{"device_number": "1"}', answer_bytes=1) == b"1"
        core.wait_for_rows("SELECT count(*) FROM quarantine", 1)
        found = everything(core)
        assert "********" in found
        assert SECRET not in found


@pytest.mark.parametrize("place", ["environment", "file"])
def test_the_password_of_a_database_that_does_not_answer_is_nowhere(place: str) -> None:
    dsn = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/x"
    core = Core(log__level="debug", log__format="json")
    if place == "file":
        secret = core.directory / "dsn"
        secret.write_text(f"{dsn}\n")
        core.environment["SIGNALKEEP_DATABASE__DSN_FILE"] = str(secret)
    else:
        core.environment["SIGNALKEEP_DATABASE__DSN"] = dsn
    with core:
        wait_until(lambda: "waiting for the database" in core.log_text(), 60)
        found = everything(core)
        assert "cannot use PostgreSQL" in found
        assert SECRET not in found
        core.stop()
        lines = [json.loads(line) for line in core.log_text().splitlines()]
    assert all({"event", "level", "timestamp", "role"} <= line.keys() for line in lines)
    starts = [line for line in lines if line["event"] == "role starts"]
    assert {line["role"] for line in starts} == {"gateway", "ingest", "monitor", "organizer"}
    assert all(line["pid"] > 0 and line["version"] for line in starts)
    stopped = [line for line in lines if line["event"] == "stopping"]
    assert {line["role"]: line["reason"] for line in stopped} == dict.fromkeys(
        ("supervisor", "gateway", "ingest", "monitor", "organizer"), "SIGTERM"
    )


def test_a_fault_at_the_start_is_one_json_line_too() -> None:
    core = Core(log__format="json")
    try:
        core.environment["SIGNALKEEP_GATEWAY__HOST"] = "198.51.100.1"
        said = core.output("run", expect=1)
        lines = [json.loads(line) for line in said.splitlines()]
        assert "198.51.100.1" in lines[-1]["event"]
        assert "gateway.host" in lines[-1]["hint"]
        assert lines[-1]["level"] == "error"
    finally:
        core.close()


def test_strangers_cannot_flood_the_log() -> None:
    with Core(unknown_devices="refuse") as core:
        wait_until((core.data / "run" / "registry.json").exists, 30, what="the gateway knows who is registered")
        before = core.log_text().count("\n")
        for number in range(300):
            protocol, nonsense = (("json", b"nonsense\n"), ("teltonika", b"\x00\x0f356307042441013"))[number % 2]
            with socket.create_connection(("127.0.0.1", core.ports[protocol]), timeout=20) as connection:
                connection.sendall(nonsense)
        core.wait_for_rows("SELECT coalesce(sum(count), 0) FROM refusal", 200)
        assert core.log_text().count("\n") - before < 10, core.log_text()
