"""docs/reliability.md is made of its text and of saved results, and of nothing else."""

from __future__ import annotations

import json
import re

from tests.faults.document import DOCUMENT, MARK, TEXT, TRIED, document
from tests.faults.planted import BUGS
from tests.faults.results import RESULTS, ROOT


def test_the_page_is_what_its_text_and_the_results_give() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m tests.faults.document"


def test_every_result_is_shown_and_its_command_exists() -> None:
    shown = set(MARK.findall(TEXT.read_text(encoding="utf-8")))
    assert shown == set(TRIED) == {path.stem for path in RESULTS.glob("*.json")}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in RESULTS.glob("*.json"):
        command = json.loads(path.read_text(encoding="utf-8"))["command"].split()
        assert (command[0], command[1] in targets) == ("make", True) or command[:2] == ["python", "-m"], path


def test_the_planted_bugs_that_are_shown_are_those_that_there_are() -> None:
    found = json.loads((RESULTS / "planted.json").read_text(encoding="utf-8"))
    assert {row[0] for row in found["table"]["rows"]} == {bug.name for bug in BUGS}
    assert found["counts"]["not noticed"] == 0
