"""The layers hold, and the contracts that say so would notice if they did not.

The contracts stand in pyproject.toml. Each is tried by planting one import that it must refuse, in a
copy of the sources. What imports cannot show (pure code that asks for the time) is sought in the syntax tree.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "src" / "signalkeep"

PLANTS: Final = [
    # contract, file, what is planted
    ("layers", "ingest/keys.py", "import signalkeep.gateway"),
    ("layers", "gateway/policy.py", "import signalkeep.store.rows, signalkeep.ingest.keys"),
    ("layers", "integrity/audit.py", "import signalkeep.ingest"),
    ("layers", "simulate/oracle.py", "import signalkeep.gateway"),
    ("layers", "journal/record.py", "import signalkeep.store.rows"),
    ("layers", "retry.py", "import signalkeep.journal"),
    ("layers", "protocols/contract.py", "import signalkeep.config"),
    ("layers", "errors.py", "import signalkeep.clock"),
    ("layers", "stray.py", '"""A module without a place."""'),
    ("pure", "protocols/contract.py", "import socket"),
    ("pure", "protocols/contract.py", "import logging"),
    ("pure", "journal/record.py", "import os"),
    ("pure", "ingest/keys.py", "import time"),
    ("pure", "ingest/validate.py", "import random"),
    ("pure", "ingest/triage.py", "import signalkeep.clock"),
    ("pure", "store/rows.py", "import asyncio"),  # not itself in the list, but triage stands on it
    ("database", "ingest/pipeline.py", "import asyncpg"),
    ("database", "cli/common.py", "import sqlalchemy"),
    ("together", "store/rows.py", "import signalkeep.supervisor"),
    ("together", "gateway/policy.py", "def late() -> None:\n    import signalkeep.cli"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources and the contracts, to be spoilt."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(PACKAGE, folder / "signalkeep", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def lint(folder: Path, contract: str | None = None) -> subprocess.CompletedProcess[str]:
    only = ["--contract", contract] if contract else []
    # The folder comes first on the path, so that the copy is judged and not what is installed.
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    command = [sys.executable, "-c", program, "--no-cache", *only]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_are_kept(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("contract", "name", "planted"), PLANTS)
def test_a_planted_import_is_noticed(copy: Path, contract: str, name: str, planted: str) -> None:
    file = copy / "signalkeep" / name
    before = file.read_bytes() if file.exists() else None
    assert before is not None or name == "stray.py", f"{name} is gone: plant it elsewhere"
    file.write_bytes((before or b"") + f"\n{planted}\n".encode())
    try:
        done = lint(copy, contract)
    finally:
        file.write_bytes(before) if before is not None else file.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def pure_files() -> list[Path]:
    """The files of the contract `pure`."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    modules = next(contract["source_modules"] for contract in contracts if contract["id"] == "pure")
    files: list[Path] = []
    for module in modules:
        path = ROOT / "src" / Path(*module.split("."))
        files += [path.with_suffix(".py")] if path.with_suffix(".py").exists() else sorted(path.rglob("*.py"))
    return files


def impure_calls(source: str) -> Iterator[tuple[int, str]]:
    """Calls that reach outside without an import of their own."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        reads_clock = called.split(".")[-1] in {"now", "utcnow", "today"} and "date" in called
        if reads_clock or called in {"open", "print", "input", "breakpoint", "__import__", "eval", "exec"}:
            yield node.lineno, called


def test_pure_code_asks_for_nothing() -> None:
    files = pure_files()
    assert len(files) > 5
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {call}()"
        for path in files
        for line, call in impure_calls(path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


def test_impure_calls_are_seen() -> None:
    source = "x = datetime.now(UTC)\ny = datetime.date.today()\nopen('f')\nz = frame.now\n"
    assert [line for line, _ in impure_calls(source)] == [1, 2, 3]
