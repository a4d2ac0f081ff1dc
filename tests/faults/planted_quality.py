"""Bugs of judging signals, at ingest and in sweeps: what is planted, and which test has to notice it."""

from __future__ import annotations

from typing import Final

from tests.faults.planted_core import Bug

AT_INGEST: Final = "tests/ingest/test_judging.py::"
IN_SWEEPS: Final = "tests/integrity/test_quality.py::"

QUALITY_BUGS: Final = (
    Bug(
        "what rules find in a re-sent record counts again",
        "-",
        "store/writer.py",
        "[(rows, row) for rows, row in hit if row.digest in marked.get(rows.device.id, ())]",
        "hit",
        by=AT_INGEST + "test_what_is_sent_again_counts_once",
    ),
    Bug(
        "what was judged and not written is remembered",
        "-",
        "ingest/pipeline.py",
        "        self._prepared_to = list(cursors)\n        self._forget_judged()\n",
        "        self._prepared_to = list(cursors)\n",
        by=AT_INGEST + "test_what_was_not_written_is_not_remembered",
    ),
    Bug(
        "a position that a rule doubts becomes the latest",
        "-",
        "store/state.py",
        "        if row.flags & Flag.DOUBTFUL_POSITION:\n",
        "        if not row.flags and row.flags & Flag.DOUBTFUL_POSITION:\n",
        by=AT_INGEST + "test_a_hit_is_a_bit_and_a_finding_and_does_not_move_the_latest_position",
    ),
    Bug(
        "a rule that raises takes the frame along",
        "P2",
        "rules/judge.py",
        "                answer = check(reading, values)\n            except Exception as error:\n",
        "                answer = check(reading, values)\n            except TypeError as error:\n",
        by="tests/rules/test_judge.py::test_a_rule_that_raises_costs_its_answer_and_nothing_else",
    ),
    Bug(
        "a sweep notes its place before the days that it has seen",
        "-",
        "store/sweep.py",
        "        async with connection.transaction():\n            rows = await self._tail.next_page(connection)\n",
        "        rows = await self._tail.next_page(connection)\n"
        "        await connection.execute(NOTE, NAME, sql.json_text(msgspec.to_builtins(self._tail.position)))\n"
        "        async with connection.transaction():\n",
        by=IN_SWEEPS + "test_a_sweep_that_fails_while_it_notes_days_sees_their_signals_again",
    ),
    Bug(
        "a day is written although something has come for it",
        "-",
        "store/sweep.py",
        "        if not same:\n",
        "        if same is None:\n",
        by=IN_SWEEPS + "test_what_comes_while_a_day_is_judged_postpones_it",
    ),
    Bug(
        "rules overrule a person",
        "-",
        "integrity/days.py",
        "    hits = tuple(hit for hit in judged.hits if overruled is not None and hit.rule.id not in overruled)\n",
        "    hits = judged.hits if overruled is not None else ()\n",
        by=IN_SWEEPS + "test_a_person_beats_the_rules_and_a_person_can_doubt_what_they_believe",
    ),
    Bug(
        "a vehicle that was towed is never believed again",
        "-",
        "rules/judge.py",
        "    if recent.candidates < REANCHOR_POINTS:\n",
        "    if recent.candidates:\n",
        by="tests/rules/test_judge.py::test_a_new_place_is_accepted_when_three_points_in_a_row_agree",
    ),
    Bug(
        "latitude and longitude are swapped where they are looked at",
        "-",
        "rules/judge.py",
        "-90 <= latitude <= 90 and -180 <= longitude <= 180",
        "-180 <= latitude <= 180 and -90 <= longitude <= 90",
        by="tests/rules/test_position.py::test_the_axes_are_not_mixed_up_as_in_the_range_check_of_the_talk",
    ),
)
