"""What a user gets: the wheel is whole and works once installed, and the locked lists can be used by anyone.

The wheel is built here and installed into an empty environment, without a network: its dependencies come from
the environment that runs the tests. The lists in requirements/ are read, never resolved (see `make lock`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock import missing_requirements, pins

ROOT: Final = Path(__file__).resolve().parent.parent
PERMISSIVE: Final = {
    *("MIT", "MIT License", "BSD-2-Clause", "BSD-3-Clause", "ISC", "ISC License", "PSF-2.0"),
    *("Apache-2.0", "Apache Software License", "Apache License, Version 2.0"),
}
# Whoever changes their files gives the changes away; using them asks for nothing.
WEAK_COPYLEFT: Final = {("certifi", "MPL-2.0")}
LICENCE_NAME_CHARS_MAX: Final = 40
# The example of codec 8 in Teltonika's public documentation: one record of 2019-06-10 10:04:46 UTC.
LOGIN: Final = "000f333536333037303432343431303133"
TELTONIKA_EXAMPLE: Final = (
    "000000000000003608010000016b40d8ea30010000000000000000000000000000000105021503010101425e0f01f10000601a014e"
    "0000000000000000010000c7cf"
)


def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings


def locked(kind: str) -> dict[str, str]:
    return pins((ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8"))


def done(command: list[str | Path], *, text: str = "") -> str:
    """Run a command to its end and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    arguments = [str(part) for part in command]
    result = subprocess.run(
        arguments, input=text, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel in it, and the dependencies of this one in sight."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(done([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    # A folder named in a .pth file is searched, but its own .pth files are not read: ours stays out of sight.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        python,
    ]
    done([*pip, "install", "--no-deps", "--no-index", wheel])
    return home / "bin"


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "signalkeep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= names
    assert "signalkeep/py.typed" in names
    assert any(re.fullmatch(r"signalkeep/store/migrations/.*\.sql", name) for name in names)
    assert any(re.fullmatch(r"signalkeep-[^/]+\.dist-info/licenses/LICENSE", name) for name in names)
    assert not any(name.startswith(("tests/", "scripts/")) for name in names)


def test_the_installed_command_works(installed: Path) -> None:
    found = done([installed / "python", "-c", "import signalkeep; print(signalkeep.__file__)"]).strip()
    assert Path(found).is_relative_to(installed.parent), "the test sees the sources instead of the wheel"
    namespace: dict[str, str] = {}
    exec((ROOT / "src/signalkeep/__init__.py").read_text(encoding="utf-8"), namespace)
    assert namespace["__version__"] in done([installed / "signalkeep", "--version"])
    assert "usage" in done([installed / "signalkeep", "--help"]).lower()


def test_the_installed_command_decodes_a_message(installed: Path) -> None:
    printed = done([installed / "signalkeep", "decode", "teltonika", "--json"], text=f"{LOGIN}\n{TELTONIKA_EXAMPLE}\n")
    _, answer = printed.splitlines()
    (signal,) = json.loads(answer)["signals"]
    assert signal["device_time"] == "2019-06-10T10:04:46.000Z"


@pytest.mark.parametrize("kind", ["run", "build", "dev"])
def test_a_lock_holds_all_that_it_needs_everywhere(kind: str) -> None:
    found = locked(kind)
    assert found
    assert found.items() <= locked("dev").items()
    assert sorted(set(missing_requirements(list(found)))) == []


def test_the_locks_fit_the_project() -> None:
    settings = project()
    wanted = {
        "run": settings["project"]["dependencies"],
        "build": settings["build-system"]["requires"],
        "dev": settings["project"]["optional-dependencies"]["dev"],
    }
    faults = []
    for kind, lines in wanted.items():
        found = locked(kind)
        for requirement in map(Requirement, lines):
            name = canonicalize_name(requirement.name)
            if name not in found or not requirement.specifier.contains(found[name], prereleases=True):
                faults.append(f"requirements/{kind}.txt: {requirement} is not met: run `make lock`")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url somewhere",
        "name @ file:///wheels/name.whl",
        "name==1.0",
        "    # via -r /home/someone/project/run.in",
        "name==1.0 --hash=md5:0123",
    ],
)
def test_a_lock_refuses_anything_but_versions_and_hashes(line: str) -> None:
    with pytest.raises(SystemExit):
        pins(line)


def licence(name: str) -> str:
    """The licence of an installed package, in the words of its metadata."""
    said = metadata(name)
    for field in ("License-Expression", "License"):
        (text,) = said.get_all(field) or [""]
        if text and len(text) < LICENCE_NAME_CHARS_MAX:  # some put the whole text there
            return str(text)
    classifiers = [line for line in said.get_all("Classifier") or () if line.startswith("License ::")]
    return " AND ".join(line.split(" :: ")[-1] for line in classifiers)


def test_all_that_a_user_installs_is_permissively_licensed() -> None:
    faults = []
    for name in locked("run"):
        parts = re.split(r" (?:AND|OR) ", licence(name))
        if not set(parts) <= PERMISSIVE and (name, licence(name)) not in WEAK_COPYLEFT:
            faults.append(f"{name} {version(name)}: {licence(name) or 'names no licence'}")
    assert not faults, "\n".join(faults)


def test_the_page_of_licences_is_true() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = [f"| {name} | {licence(name)} |" for name in locked("run")]
    assert re.findall(r"^\| (?!package).* \|$", page, flags=re.MULTILINE) == rows, "docs/licences.md:\n" + "\n".join(
        rows
    )
