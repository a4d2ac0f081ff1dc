"""Every rule that comes with signalkeep, in the order in which they are asked.

    framing, identity, schema, time, position, motion, vehicle, device, fleet

A rule's bit in `signal.flags` is frozen: rows that were marked years ago must still say the same. Bits 8 to 52 are of
this list; tests hold the numbers.
"""

from __future__ import annotations

from typing import Final

from signalkeep.rules import anomalies, device, framing, identity, motion, position, schema, timing, vehicle
from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = (
    *framing.RULES,
    *identity.RULES,
    *schema.RULES,
    *timing.RULES,
    *position.RULES,
    *motion.RULES,
    *vehicle.RULES,
    *device.RULES,
    *anomalies.RULES,
)
BY_ID: Final = {rule.id: rule for rule in RULES}
