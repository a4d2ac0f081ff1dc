"""The Dockerfile, without building it: what it copies is there and enough, and nothing unpinned gets in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "deploy" / "compose" / "Dockerfile"
TEXT: Final = FILE.read_text(encoding="utf-8").replace("\\\n", " ")


def steps(word: str) -> list[str]:
    return re.findall(rf"^{word} +(.*)$", TEXT, flags=re.MULTILINE)


def copied() -> list[str]:
    """What it takes from the repository."""
    return [source for step in steps("COPY") if not step.startswith("--from") for source in step.split()[:-1]]


def test_it_takes_only_what_is_let_through_to_the_builder() -> None:
    rules = FILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[1] == "*", "everything is left out but what is named"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {Path(source).parts[0] for source in copied()} == let_in
    assert all((ROOT / source).exists() for source in copied())


def test_whatever_is_installed_is_pinned_by_a_hash_or_built_here() -> None:
    assert set(steps("FROM")) == {"python:3.11-slim AS build", "python:3.11-slim"}
    installed = re.findall(r"pip (?:install|wheel)[^&\n]*", TEXT)
    assert len(installed) == 4
    for step in installed:
        assert "--require-hashes" in step or "--no-deps" in step, step
    assert not re.search(r"curl|wget|apt|ADD|http", TEXT)


def test_it_runs_as_nobody_in_particular_and_is_stopped_in_order() -> None:
    assert steps("USER") == ["10001"]
    assert steps("ENTRYPOINT") == ['["signalkeep"]'], (
        "it is the process that gets the signal, without a shell before it"
    )
    assert steps("STOPSIGNAL") == ["SIGTERM"]
    assert "SIGNALKEEP_DATA=/var/lib/signalkeep" in steps("ENV")[0]


def test_the_wheel_is_built_from_what_it_copies(tmp_path: Path) -> None:
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / source).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-index", "--wheel-dir", str(tmp_path / "wheel"), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "wheel").glob("signalkeep-*.whl"))) == 1
