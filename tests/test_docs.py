"""What the documentation shows is true: its commands are run, its lists are compared with the code.

A console block of a page in PAGES that stands right below the comment `<!-- executed -->` is run, in order, against
an instance with a data directory of its own, where $BACKUPS is a directory beside it:

    $ command              must succeed; a trailing backslash continues it on a line that starts with "> "
    output                 what it must print; nothing: whatever it prints

Outputs are compared loosely: runs of spaces count as one, and `...` stands for anything. The documented ports
are replaced by those that the instance really has. Blocks without the comment are never run. Each page has an instance
of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from signalkeep.model import Reason
from signalkeep.roles import running_roles
from signalkeep.store.postgres import embedded_dsn
from tests.builders import ask
from tests.servers import wait_until

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = (
    "README.md",
    *(f"docs/{name}.md" for name in ("operations", "backup", "quality", "incidents", "from-the-talk")),
)
BLOCK: Final = re.compile(r"^<!-- executed -->\n+```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
PORTS: Final = {"teltonika": 5027, "json": 2006}
MONITOR_PORT: Final = 7465
START_S_MAX: Final = 90.0
STOP_S_MAX: Final = 60.0
COMMAND_S_MAX: Final = 60.0


class Step(NamedTuple):
    command: str
    output: str


def steps(markdown: str) -> list[Step]:
    """The commands of all executed blocks, with the output shown below each."""
    found: list[Step] = []
    for block in BLOCK.findall(markdown):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.replace("\\\n> ", " ").partition("\n")
            found.append(Step(command.strip(), output.strip()))
    return found


def agrees(shown: str, printed: str) -> bool:
    """Whether the output is what the documentation shows."""
    words = [re.escape(" ".join(piece.split())) for piece in shown.split("...")]
    return not shown or bool(re.fullmatch(r"\s*.*\s*".join(words), " ".join(printed.split()), flags=re.DOTALL))


def test_steps_are_found() -> None:
    first = "```console\n$ never run\n```\n"
    second = "<!-- executed -->\n```console\n$ one \\\n> two\nout\nmore\n\n$ three\n```\n"
    third = "text\n\n<!-- executed -->\n\n```console\n$ four | five\n```\n"
    page = first + second + third
    assert steps(page) == [Step("one  two", "out\nmore"), Step("three", ""), Step("four | five", "")]


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("", "anything", True),
        ("stored   1", "stored 1\n", True),
        ("stored 1", "stored 2", False),
        ("a ... z", "a b\nc z", True),
        ("a\n...", "a\nb\nc", True),
        ("a ... z", "a b\nc", False),
        ("in 3.4 ...", "in 304 ms", False),
    ],
)
def test_outputs_are_compared_loosely(shown: str, printed: str, expected: bool) -> None:
    assert agrees(shown, printed) is expected


@pytest.fixture
def instance(short_directory: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """A running signalkeep: its data directory and its ports."""
    data, log = short_directory / "data", short_directory / "log"
    zeros = ",".join(f'"{name}":0' for name in PORTS)
    settings = {"SIGNALKEEP_GATEWAY__PORTS": f"{{{zeros}}}", "SIGNALKEEP_GATEWAY__HOST": "127.0.0.1"}
    settings["SIGNALKEEP_MONITOR__PORT"] = "0"
    command = [sys.executable, "-m", "signalkeep", "run", "--data", str(data)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: process.poll() is not None or started(data), START_S_MAX, what="signalkeep starts")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield data, started(data)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        finally:
            process.kill()
            process.wait()


def started(data: Path) -> dict[str, int]:
    """The ports, once all roles are ready."""
    roles = {role.role: role for role in running_roles(data / "run")}
    if not {"gateway", "ingest", "monitor"} <= roles.keys():
        return {}
    return roles["gateway"].ports | roles["monitor"].ports


def stand_ins(directory: Path) -> Path:
    """A folder with a `curl` for systems that have none; searched last."""
    folder = directory / "bin"
    folder.mkdir()
    curl = folder / "curl"
    fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[-1]).read().decode(), end='')"
    curl.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{fetch}" "$@"\n', encoding="utf-8")
    curl.chmod(0o755)
    return folder


@pytest.mark.servers
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_happens(page: str, instance: tuple[Path, dict[str, int]]) -> None:
    found = steps((ROOT / page).read_text(encoding="utf-8"))
    assert found, f"{page} shows no executed example"
    data, ports = instance
    if any("FROM service" in step.command for step in found):  # the monitor writes soon after its start, not at once
        seen = "SELECT FROM service WHERE host <> ''"
        wait_until(lambda: ask(embedded_dsn(data), seen), START_S_MAX, what="the monitor has written")
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "SIGNALKEEP_DATA": str(data),
        "SIGNALKEEP_JOURNAL__ALLOW_UNSAFE": "true",  # where /tmp is memory
        "BACKUPS": str(data.parent / "backups"),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}{os.pathsep}{stand_ins(data.parent)}",
        "COLUMNS": "200",
    }
    for command, shown in found:
        actual = command
        for name, documented in (PORTS | {"monitor": MONITOR_PORT}).items():
            actual = re.sub(rf"\b{documented}\b", str(ports[name]), actual)
        done = subprocess.run(
            ["/bin/sh", "-c", actual],
            env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=COMMAND_S_MAX,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        assert agrees(shown, done.stdout), f"$ {command}\n{done.stdout}\n-- {page} shows --\n{shown}"


def test_the_page_of_reasons_names_every_reason_once_and_in_order() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    assert named == [reason.value for reason in Reason]


def test_the_page_of_reasons_divides_refused_and_quarantined() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    refused, _, quarantined = page.partition("\n## Quarantined\n")
    assert "`gateway_error`" in refused
    assert "`unknown_device`" in quarantined
    rows = re.findall(r"^\| `\w+` \|(.*)\|$", page, flags=re.MULTILINE)
    assert all(len([cell for cell in row.split("|") if cell.strip()]) == 2 for row in rows)
