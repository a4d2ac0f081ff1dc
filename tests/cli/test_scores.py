"""`scores`: of devices, models, vehicles, customers and days, the worst first, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from signalkeep.cli.scores import _percent
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Dimension
from signalkeep.store import assignments, fleet, registry
from tests.builders import Feed, event
from tests.cli.commands import RULES, Commands, lines_of
from tests.servers import PostgresServer, connected, run_sync

pytestmark = pytest.mark.servers

MAY_FIRST = ("--since", "2026-05-01", "--until", "2026-05-01")
MAY = ("--since", "2026-04-01", "--until", "2026-05-31")


async def fill(dsn: str) -> None:
    """Device 1: a tenth of 40 signals is off the globe. 2: sound. 3: too little to say. 1 and 2 are Acme's."""
    async with connected(dsn) as connection:
        await fleet.add_customer(connection, "Acme", actor="tests")
        for number, vehicle in (("1", "van 7"), ("2", "van 8"), ("3", None)):
            await registry.register(connection, number, actor="tests")
            if vehicle:
                await fleet.add_vehicle(connection, vehicle, customer="Acme", actor="tests")
                await assignments.assign(connection, number, vehicle, actor="tests")
        for number in ("1", "2"):
            await registry.change(connection, number, {"model": "FMB920"}, actor="tests")
        day_before = 24 * 60
        frames = [event("1", minute=n, latitude=95.0 if n % 10 == 0 else 37.98) for n in range(40)]
        frames += [event("2", minute=n + offset) for n in range(30) for offset in (0, day_before)]
        frames += [event("3", minute=n) for n in range(5)]
        await (await Feed.open(connection)).write(connection, *frames)


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    dsn = run_sync(postgres_server.create_database())
    commands = Commands(dsn, tmp_path_factory.mktemp("scores"))
    assert commands.json("scores") == []
    assert "no day has been judged yet" in commands.result("scores").stderr
    run_sync(fill(dsn))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RULES, (BY_ID["POS-01"],))
        commands("rules", "sweep")
    yield commands
    run_sync(postgres_server.drop_database(dsn))


def of(rows: list[dict[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(row[field] for field in fields) for row in rows]


def test_devices_the_worst_first_and_why(filled: Commands) -> None:
    rows = filled.json("scores", *MAY_FIRST)
    assert of(rows, "name", "model", "signals", "rule", "hits") == [
        ("1", "FMB920", 40, "POS-01", 4), ("2", "FMB920", 30, None, None), ("3", "", 5, None, None),
    ]  # fmt: skip
    validity = [row["dimensions"]["validity"] for row in rows]
    assert validity == [
        {"of": 40, "good": 36, "score": 0.9}, {"of": 30, "good": 30, "score": 1.0}, {"of": 5, "good": 5, "score": None},
    ]  # fmt: skip
    assert [row["overall"] for row in rows] == [pytest.approx(0.6 * 0.9 + 0.4 * 0.95), 1.0, None]
    assert list(rows[0]["dimensions"]) == list(Dimension)


def test_as_a_table(filled: Commands) -> None:
    done = filled.result("scores", *MAY_FIRST)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split() == ["device", "signals", "overall", *Dimension, "mostly"]
    first, second, third = lines_of(done.stdout)
    assert first == ["1", "40", "92.0", "%", "?", "?", "90.0", "%", "?", "?", "100", "%", "POS-01", "(4", "signals)"]
    assert second[:4] == ["2", "30", "100", "%"]
    assert third == ["3", "5", "?", "?", "?", "?", "?", "?", "?"]
    assert "rules explain" in done.stderr


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "?"), (1.0, "100 %"), (0.99999, "99.9 %"), (0.9996, "99.9 %"), (0.5, "50.0 %"), (0.0, "0.0 %")],
)
def test_never_a_hundred_percent_where_something_was_bad(value: float | None, said: str) -> None:
    assert _percent(value) == said


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("device", [("1", 40), ("2", 60), ("3", 5)]),
        ("model", [("FMB920", 100), ("(not known)", 5)]),
        ("vehicle", [("van 7", 40), ("van 8", 60)]),
        ("customer", [("Acme", 100)]),
        ("day", [("2026-05-01", 75), ("2026-04-30", 30)]),
    ],
)
def test_by_each(filled: Commands, by: str, expected: list[tuple[str, int]]) -> None:
    rows = filled.json("scores", "--by", by, *MAY)
    assert of(rows, "name", "signals") == expected
    table = filled("scores", "--by", by, *MAY)
    assert table.split()[0] == by
    assert [line.split("  ")[0] for line in table.splitlines()[1:]] == [name for name, _ in expected]


def test_sums_of_many_are_scored_as_one(filled: Commands) -> None:
    (row,) = filled.json("scores", "--by", "customer", *MAY)
    assert row["dimensions"]["validity"] == {"of": 100, "good": 96, "score": 0.96}
    assert row["overall"] == pytest.approx(0.6 * 0.96 + 0.4 * (0.96 + 1.0) / 2)


@pytest.mark.parametrize(
    ("by", "only", "signals"),
    [
        ("device", "2", [60]), ("device", "404", []), ("model", "FMB920", [100]), ("model", "(not known)", [5]),
        ("vehicle", "van 8", [60]), ("customer", "Acme", [100]), ("customer", "Nobody", []), ("day", "2", [30, 30]),
    ],
)  # fmt: skip
def test_only_one(filled: Commands, by: str, only: str, signals: list[int]) -> None:
    rows = filled.json("scores", "--by", by, "--only", only, *MAY)
    assert [row["signals"] for row in rows] == signals


def test_days_and_limits(filled: Commands) -> None:
    assert of(filled.json("scores", "--since", "2026-04-30", "--until", "2026-04-30"), "name") == [("2",)]
    assert of(filled.json("scores", *MAY, "--limit", "1"), "name") == [("1",)]
    assert filled.json("scores", "--since", "2026-05-02") == []
    assert filled.json("scores") == [], "yesterday and today, and these are of another year"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--by", "colour"], ["--since", "yesterday"], ["--until", "2026-13-01"], ["--since", "2h"], ["--limit", "0"],
        ["--limit", "many"], ["--since", "2026-05-02", "--until", "2026-05-01"], ["--by"], ["now"],
    ],
)  # fmt: skip
def test_calls_that_make_no_sense(filled: Commands, arguments: list[str]) -> None:
    filled.refused("scores", *arguments)
