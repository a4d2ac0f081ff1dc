"""SCH: does a signal have what it should have, in the form that it should have?"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = ()
