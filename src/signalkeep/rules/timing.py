"""TIM: is the time right, and did the signal come in time?"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = ()
