"""What the schema itself says of quality: the good view's mask, and the overall score as the rules reckon it."""

from __future__ import annotations

import random

import pytest

from signalkeep.model import Flag
from signalkeep.rules.contract import Dimension
from signalkeep.rules.scores import Share, overall
from signalkeep.store.postgres import Connection

pytestmark = pytest.mark.servers


async def test_the_good_view_leaves_out_what_a_rule_or_a_person_doubts(connection: Connection) -> None:
    definition = await connection.fetchval("SELECT pg_get_viewdef('signal_good')")
    assert f"s.flags & {int(Flag.DOUBTFUL_POSITION | Flag.PERSON_BAD)}" in definition.replace("(", "").replace(")", "")


async def test_views_reckon_the_overall_score_as_the_rules_do(connection: Connection) -> None:
    source = random.Random(7)
    for _ in range(200):
        of = [source.choice((0, 5, 19, 20, 21, 1000)) for _ in Dimension]
        good = [source.randint(0, n) for n in of]
        ours = overall({one: Share(n, g) for one, n, g in zip(Dimension, of, good, strict=True)})
        theirs = await connection.fetchval("SELECT signalkeep_overall($1::bigint[], $2::bigint[])", of, good)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert theirs == pytest.approx(ours, abs=1e-6)
