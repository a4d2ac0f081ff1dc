"""Completion in bash, zsh and fish: the script that each is given, and what the program proposes to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "signalkeep"
PROPOSALS = [
    ("signalkeep dec", ["decode"]),
    ("signalkeep dev", ["devices"]),
    ("signalkeep config ", ["show", "example", "check"]),
    ("signalkeep decode tel", ["teltonika"]),
    ("signalkeep send js", ["json"]),
    ("signalkeep devices list --status re", ["retired"]),
    ("signalkeep quarantine list --reason unknown_dev", ["unknown_device"]),
    ("signalkeep config show --or", ["--origin"]),
]

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="NO INSTALLED PROGRAM, COMPLETION NOT TESTED")


def answer(**environ: str) -> str:
    done = subprocess.run(
        [PROGRAM], env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize(("line", "proposed"), PROPOSALS)
def test_bash(line: str, proposed: list[str]) -> None:
    """The real one, if it is there: it loads the script and asks as at a press of the tab key."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("NO BASH, ITS COMPLETION NOT TESTED")
    words = line.split(" ")
    script = (
        f'eval "$(_SIGNALKEEP_COMPLETE=source_bash signalkeep)"; COMP_WORDS=({" ".join(map(repr, words))}); '
        f'COMP_CWORD={len(words) - 1}; _signalkeep_completion signalkeep; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    environment = os.environ | {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [shell, "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == proposed, done.stderr


@pytest.mark.parametrize(("line", "proposed"), PROPOSALS)
def test_zsh(line: str, proposed: list[str]) -> None:
    printed = answer(_SIGNALKEEP_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)
    assert all(f'"{word}"' in printed for word in proposed), printed
    assert "_arguments" in printed


@pytest.mark.parametrize(("line", "proposed"), PROPOSALS)
def test_fish(line: str, proposed: list[str]) -> None:
    asked = {"_SIGNALKEEP_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": line}
    printed = answer(_TYPER_COMPLETE_FISH_ACTION="get-args", **asked)
    assert [row.split("\t")[0] for row in printed.splitlines()] == proposed


@pytest.mark.parametrize(
    ("shell", "begins"),
    [
        ("bash", "_signalkeep_completion()"),
        ("zsh", "#compdef signalkeep"),
        ("fish", "complete --command signalkeep"),
    ],
)
def test_the_script_for_each_shell(shell: str, begins: str) -> None:
    printed = answer(_SIGNALKEEP_COMPLETE=f"source_{shell}")
    assert printed.strip().startswith(begins)
    if shell != "bash" and (real := shutil.which(shell)):
        check = subprocess.run([real, "-n"], input=printed, text=True, capture_output=True, check=False)
        assert check.returncode == 0, check.stderr


def test_the_option_shows_the_script_of_the_shell_that_it_is_called_from() -> None:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("NO BASH, ITS COMPLETION NOT TESTED")
    done = subprocess.run(
        [shell, "--norc", "-c", f"{PROGRAM} --show-completion; true"], capture_output=True, text=True, check=False
    )
    assert "complete -o default -F _signalkeep_completion signalkeep" in done.stdout, done.stderr
