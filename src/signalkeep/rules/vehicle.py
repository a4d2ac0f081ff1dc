"""VEH: do the values of the vehicle agree with each other and with what is possible?"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = ()
