"""DEV: is the device well?"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = ()
