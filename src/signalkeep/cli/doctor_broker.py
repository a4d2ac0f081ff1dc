"""What `doctor` finds out about the broker: whether it can be reached, and whether it keeps what it confirms.

It looks at the queues that are there and makes none; it sends and takes nothing.
"""

from __future__ import annotations

import asyncio

from signalkeep.broker import management
from signalkeep.broker.address import redact
from signalkeep.broker.link import Link
from signalkeep.cli.doctor_disk import Check
from signalkeep.config import Settings
from signalkeep.errors import SettingsError, SignalkeepError, UnsafeBroker


def check_broker(settings: Settings) -> Check:
    """One check; its advice says what to mend."""
    try:
        return asyncio.run(_look(settings))
    except SettingsError as error:
        return Check("broker", "fail", error.message, error.hint)
    except UnsafeBroker as error:
        return Check("broker", "fail", error.message, error.hint)
    except SignalkeepError as error:
        advice = error.hint or "Start it. Devices are acknowledged meanwhile, until the journal's cap."
        return Check("broker", "warn", error.message, advice)


async def _look(settings: Settings) -> Check:
    link = await Link.open(settings.broker, application="signalkeep doctor", make=False)
    try:
        depths = [await link.depth(queue) for queue in range(settings.broker.queues)]
        there = [depth for depth in depths if depth is not None]
        found = f"RabbitMQ {link.version} at {redact(settings.broker.resolved_url())}"
        found += f", {len(there)} of {len(depths)} queues are there, {sum(there)} messages wait in them"
        if await management.visible(settings.broker):
            return Check("broker", "ok", f"{found}, no policy trims them")
        return Check(
            "broker",
            "warn",
            f"{found}; whether a policy trims them cannot be seen",
            "Set broker.management_url, or see to it that no policy matches names that begin with `signalkeep.`.",
        )
    finally:
        await link.close()
