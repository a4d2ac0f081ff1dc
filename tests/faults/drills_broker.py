"""Outage drills of the broker: it is stopped, takes nothing because of an alarm, comes back with an empty disk.

All the while devices are acknowledged; afterwards the journals bring what is not in the database. What they cannot see:
a broker that says that it has stored what it has not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from tests.faults.broker_core import BrokerCore, leftovers
from tests.faults.drill import Result, end, hold
from tests.faults.fleet import Load, load
from tests.faults.judgement import dsn_of
from tests.faults.victims import POSTMASTER, find, stopped

WENT_BACK: Final = "sending again from the cursor"
FILLS_S_MAX: Final = 10.0


def broker_stopped(seconds: float) -> Result:
    """It ends in good order and is started again."""

    @contextmanager
    def away(core: BrokerCore, _: Load) -> Iterator[None]:
        core.node.stop()
        yield
        core.node.start()

    return _drill(seconds, away)


def broker_blocked(seconds: float) -> Result:
    """Its memory is full: connections live, and nothing that is published on them is taken."""

    @contextmanager
    def blocked(core: BrokerCore, _: Load) -> Iterator[None]:
        core.node.memory_alarm(True)
        yield
        core.node.memory_alarm(False)

    return _drill(seconds, blocked)


def broker_wiped(seconds: float) -> Result:
    """It is killed full of confirmed messages, since PostgreSQL hangs, and its disk is empty when it comes back."""
    in_queues: list[int] = []

    @contextmanager
    def wiped(core: BrokerCore, driving: Load) -> Iterator[None]:
        postmaster = find(core, POSTMASTER)
        assert postmaster is not None
        with stopped(postmaster):
            hold(driving, min(seconds, FILLS_S_MAX))
            in_queues.append(sum(queue.messages for queue in core.node.queues().values()))
            core.node.kill()
        core.node.wipe()
        yield
        core.node.start()

    result = _drill(seconds, wiped, must_say=WENT_BACK)
    if not in_queues[0]:
        result.broken.append("nothing was in the queues when they were wiped")
    return result


def _drill(
    seconds: float, outage: Callable[[BrokerCore, Load], AbstractContextManager[None]], *, must_say: str = ""
) -> Result:
    """One outage under load. `must_say`: what must be in the log afterwards, so that it was an outage."""
    result = Result()
    with BrokerCore(unknown_devices="register") as core, load(core) as driving:
        dsn = dsn_of(core)
        driving.wait_for_progress()
        began_s, before = time.monotonic(), driving.told_safe
        with outage(core, driving):
            hold(driving, seconds)
        over_s = time.monotonic()
        result.outage_s, result.told_safe_in_outage = over_s - began_s, driving.told_safe - before
        end(core, dsn, driving, result, over_s=over_s)
        result.broken += leftovers(core.node, dsn)
        if must_say not in core.log_text():
            result.broken.append(f"the log does not say: {must_say}")
    return result
