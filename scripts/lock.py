"""Writes requirements/{run,build,dev}.txt: what signalkeep runs on, what builds it, what tests it.

    run     the runtime dependencies of pyproject.toml
    build   the build backend
    dev     both, and the `dev` extra

A list holds names, versions, markers and hashes, nothing else: no address, host or path of where it was made.
So pip is asked with its configuration and environment put aside, and each line must match what a list may
hold. A list is written only if its versions have built packages for every Python and platform below, and if
it holds all that these need (dependencies differ between them). Versions that still fit are kept, unless
`--upgrade` asks for the newest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
PLATFORMS: Final[
    dict[tuple[str, str], tuple[str, ...]]
] = {  # newest tag first: pip takes the tags as given, it does not derive the older ones
    ("Linux", "x86_64"): ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    ("Linux", "aarch64"): ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    ("Darwin", "arm64"): ("macosx_14_0_arm64",),
    ("Darwin", "x86_64"): ("macosx_14_0_x86_64",),
}
HEADERS: Final = {
    "run": "What signalkeep runs on. Written by `make lock`; install with pip's --require-hashes.",
    "build": "What builds the signalkeep package. Written by `make lock`.",
    "dev": "What signalkeep runs on and is built, checked and tested with. Written by `make lock`.",
}
PIN: Final = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][0-9a-z.]*)( ; [\w .'\"<>=!]+)? \\")
HASH: Final = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def clean_environment() -> dict[str, str]:
    """The environment without what tells pip of other indexes; the certificates of this machine stay."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") or k == "PIP_CERT"}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(arguments: Sequence[str]) -> None:
    """Run a module of this Python; ends the script with its message if it fails."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def compile_list(source: Path, target: Path, options: Sequence[str]) -> None:
    """Resolve `source` into `target`, which keeps the versions that it already has."""
    quiet = ["--quiet", "--no-header", "--no-annotate", "--no-config"]
    silent_on_origin = [f"--no-emit-{what}" for what in ("index-url", "find-links", "trusted-host", "options")]
    form = ["--generate-hashes", "--strip-extras", "--allow-unsafe", "--newline", "lf"]
    run(
        [
            "piptools",
            "compile",
            *quiet,
            *silent_on_origin,
            *form,
            *options,
            "--output-file",
            str(target),
            str(source),
        ]
    )


def titled(kind: str, target: Path) -> str:
    """The list with our own header in place of pip-compile's remarks."""
    lines = target.read_text(encoding="utf-8").splitlines()
    return "\n".join([f"# {HEADERS[kind]}", *(line for line in lines if line and line[0] != "#")]) + "\n"


def pins(text: str) -> dict[str, str]:
    """Name -> version of a list; ends the script at the first line that a list may not hold."""
    found = {}
    for line in text.splitlines():
        pin = PIN.fullmatch(line)
        if pin:
            found[pin["name"]] = pin["version"]
        elif line and not HASH.fullmatch(line) and line not in {f"# {header}" for header in HEADERS.values()}:
            sys.exit(f"a lock may hold names, versions, markers and hashes only: {line!r}")
    return found


def missing_requirements(names: Sequence[str]) -> Iterator[str]:
    """Dependencies of the named (installed) packages that are not among them, on any Python and platform."""
    for name in names:
        for line in requires(name) or ():
            wanted = Requirement(line)
            for python in PYTHONS:
                for system, machine in PLATFORMS:
                    environment = {"python_version": python, "python_full_version": f"{python}.0"}
                    environment |= {"platform_system": system, "sys_platform": system.lower()}
                    environment |= {"platform_machine": machine, "extra": ""}
                    applies = wanted.marker is None or wanted.marker.evaluate(environment)
                    if applies and canonicalize_name(wanted.name) not in names:
                        yield f"{name} needs {line} on Python {python}, {system} {machine}"


def check_built_packages(versions: dict[str, str], scratch: Path) -> None:
    """Every version has a built package for every Python and platform."""
    plain = scratch / "plain.txt"
    plain.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    for python in PYTHONS:
        for tags in PLATFORMS.values():
            where = [option for tag in tags for option in ("--platform", tag)]
            what = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:"]
            target = ["--target", str(scratch), "--python-version", python]
            run(["pip", "install", "--quiet", *what, *where, *target, "-r", str(plain)])
            print(f"  built packages for Python {python}, {tags[0]}")


def main() -> None:
    """Resolve, check, then replace all lists at once."""
    upgrade = [argument for argument in sys.argv[1:] if argument == "--upgrade"]
    folder = ROOT / "requirements"
    folder.mkdir(exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        targets = {kind: scratch / f"{kind}.txt" for kind in HEADERS}
        for kind, target in targets.items():
            before = folder / f"{kind}.txt"
            target.write_bytes(before.read_bytes() if before.exists() else b"")
        backend = scratch / "build.in"
        backend.write_text("\n".join(project["build-system"]["requires"]), encoding="utf-8")
        compile_list(ROOT / "pyproject.toml", targets["run"], upgrade)
        compile_list(backend, targets["build"], upgrade)
        below = ["--constraint", str(targets["run"]), "--constraint", str(targets["build"])]
        compile_list(ROOT / "pyproject.toml", targets["dev"], [*upgrade, "--extra", "dev", *below])

        texts = {kind: titled(kind, target) for kind, target in targets.items()}
        found = {kind: pins(text) for kind, text in texts.items()}
        for kind in ("run", "build"):
            outside = found[kind].items() - found["dev"].items()
            assert not outside, f"{kind} and dev differ: {outside}"
        check_built_packages(found["dev"], scratch)
        # Only now can their metadata be read: the lists are installed here.
        run(
            [
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "-r",
                str(targets["dev"]),
            ]
        )
    for kind, text in texts.items():
        missing = sorted(set(missing_requirements(list(found[kind]))))
        if missing:
            sys.exit(f"requirements/{kind}.txt would lack:\n" + "\n".join(missing))
        (folder / f"{kind}.txt").write_text(text, encoding="utf-8")
        print(f"requirements/{kind}.txt: {len(found[kind])} packages")


if __name__ == "__main__":
    main()
