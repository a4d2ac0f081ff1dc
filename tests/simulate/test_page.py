"""docs/simulator.md says what is so: its options are the command's, its examples are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from benchmarks.acknowledging import acknowledging
from signalkeep import limits
from signalkeep.cli.simulate import simulate
from signalkeep.simulate.faults import KINDS
from signalkeep.simulate.scenarios import SCENARIOS
from tests.test_docs import agrees, steps

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")


def test_every_option_is_on_the_page_and_no_other() -> None:
    app = typer.Typer()
    app.command()(simulate)
    command = typer.main.get_command(app)
    real = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    table = PAGE.partition("## Options")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(--[\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE))))
    assert named == {name for name in real if name.startswith("--")} - {"--install-completion", "--show-completion"}


def test_every_scenario_is_on_the_page() -> None:
    section = PAGE.partition("## What it drives")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z][a-z-]+)` \|", section, flags=re.MULTILINE)) == set(SCENARIOS)
    assert f"up to {limits.SIMULATED_BACKLOG_PACKET_RECORDS_MAX} in a packet" in PAGE


def test_every_kind_of_fault_is_on_the_page() -> None:
    section = PAGE.partition("## Faults")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+) \| (.+) \|$", section, flags=re.MULTILINE)
    assert rows == [(kind.name, kind.meaning, kind.unit) for kind in KINDS.values()]


def test_help_can_be_printed() -> None:
    app = typer.Typer()
    app.command()(simulate)
    assert "--scenario" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output


def test_what_the_page_shows_happens(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "signalkeep").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m signalkeep "$@"\n')
    (programs / "signalkeep").chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    found = steps(PAGE)
    assert len(found) >= 4
    with acknowledging() as port:
        for command, shown in found:
            done = subprocess.run(
                ["/bin/sh", "-c", command.replace("--port 5027", f"--port {port}")],
                env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            assert agrees(shown, done.stdout), f"$ {command}\n{done.stdout}\n-- the page shows --\n{shown}"
