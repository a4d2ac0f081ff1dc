"""The house style, as far as a program can check it. A rule that nobody checks is a wish.

Reads the tracked and the new files of the repository, as git lists them; changes nothing.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
LINES_PER_FILE_MAX: Final = 500
LINES_PER_FUNCTION_MAX: Final = 60
LINES_ON_ONE_SENTENCE_MAX: Final = 150

# Put together here, so that this file does not contain what it forbids.
REGISTRY_HOSTS: Final = [
    f"{name}.{end}"
    for name, end in (
        ("pypi", "org"), ("python" + "hosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("crates", "io"),
        ("proxy.golang", "org"), ("deb.debian", "org"), ("rubygems", "org"), ("repo1.maven", "org"),
    )
]  # fmt: skip
MACHINE_PATHS: Final = [
    f"/{first}/{second}"
    for first, second in (
        ("work", "main"), ("work", "shared"), ("work", "."), ("root", "."),
        ("opt", "wheels"), ("opt", "pypi"),
    )
]  # fmt: skip

SUPPRESSION: Final = re.compile(r"#\s*(type:\s*ignore|noqa)\b")
CODE: Final = r"[A-Z]+[0-9]+"
EXPLAINED: Final = re.compile(
    rf"#\s*(type:\s*ignore\[[\w-]+(,\s*[\w-]+)*\]|noqa:\s*{CODE}(,\s*{CODE})*)\s+[#-]\s*\w.{{4,}}"
)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def repository_files() -> list[Path]:
    """Every file that is tracked, or would be after `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted(path for name in names.split("\0") if name and (path := ROOT / name).is_file())


FILES: Final = repository_files()
PYTHON: Final = [path for path in FILES if path.suffix == ".py"]
MARKDOWN: Final = [path for path in FILES if path.suffix == ".md"]


def place(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}{f':{line}' if line else ''}"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_file_opens_with_what_it_is_and_promises() -> None:
    """One sentence, two where there is much to say."""
    faults = []
    for path in PYTHON:
        source = path.read_text(encoding="utf-8")
        if not source.strip():
            continue  # marks a folder as a package
        text = ast.get_docstring(ast.parse(source)) or ""
        sentences = len(re.findall(r"[.!?](?=\s|$)", text))
        in_tests = path.is_relative_to(ROOT / "tests")
        if sentences < (2 if len(source.splitlines()) > LINES_ON_ONE_SENTENCE_MAX and not in_tests else 1):
            faults.append(f"{place(path)}: {sentences} sentences")
    assert not faults, "\n".join(faults)


def test_files_and_functions_stay_small() -> None:
    faults = []
    for path in PYTHON:
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > LINES_PER_FILE_MAX:
            faults.append(f"{place(path)}: {count} lines")
        for function in functions(path):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > LINES_PER_FUNCTION_MAX:
                faults.append(f"{place(path, function.lineno)}: {function.name}: {length} lines")
    assert not faults, "\n".join(faults)


def unexplained_suppressions(source: str) -> list[int]:
    """Lines with a suppression that lacks its code or its reason."""
    comments = [
        token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT
    ]
    return [
        token.start[0] for token in comments if SUPPRESSION.search(token.string) and not EXPLAINED.search(token.string)
    ]


def test_suppressions_carry_code_and_reason() -> None:
    faults = [
        place(path, line) for path in PYTHON for line in unexplained_suppressions(path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("comment", "accepted"),
    [
        ("# noqa", False),
        ("# noqa: S104", False),
        ("# noqa: S104 - devices call from outside", True),
        ("# noqa: BLE001, S110 - whatever it raises", True),
        ("# type: ignore", False),
        ("# type: ignore  # because", False),
        ("# type: ignore[call-arg]", False),
        ("# type: ignore[call-arg]  # defaults stand in Field", True),
        ("# an ordinary comment", True),
    ],
)
def test_what_counts_as_explained(comment: str, accepted: bool) -> None:
    assert (unexplained_suppressions(f"x = 1  {comment}\n") == []) is accepted


def test_no_registry_hosts_and_no_paths_of_one_machine() -> None:
    faults = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a binary sample
        for word in (*REGISTRY_HOSTS, *MACHINE_PATHS):
            if word in text:
                faults.append(f"{place(path, text[: text.index(word)].count(chr(10)) + 1)}: {word}")
    assert not faults, "\n".join(faults)


def anchors(path: Path) -> set[str]:
    """The names under which a page's headings can be linked."""
    headings = re.findall(r"^#+ +(.+?) *$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_of_the_documentation_resolve() -> None:
    faults = []
    for path in MARKDOWN:
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in LINK.findall(prose):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            page = (path.parent / name).resolve() if name else path
            if not page.exists() or (anchor and page.suffix == ".md" and anchor not in anchors(page)):
                faults.append(f"{place(path)}: {target}")
    assert not faults, "\n".join(faults)


def test_changelog_opens_with_the_compatibility_policy() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert sections[0] == "Compatibility"
    assert sections[1] == "Unreleased" or re.fullmatch(r"\d+\.\d+\.\d+ .*", sections[1])


def test_every_limit_is_used() -> None:
    source = (ROOT / "src/signalkeep/limits.py").read_text(encoding="utf-8")
    names = [
        node.target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    values = " ".join(re.findall(r"^\w+: Final = (.*)$", source, flags=re.MULTILINE))
    elsewhere = " ".join(
        path.read_text(encoding="utf-8")
        for path in PYTHON
        if (ROOT / "src") in path.parents and path.name != "limits.py"
    )
    assert len(names) > 10
    unused = [name for name in names if not re.search(rf"\b{name}\b", f"{values} {elsewhere}")]
    assert not unused, f"limits that bind nothing: {', '.join(unused)}"
