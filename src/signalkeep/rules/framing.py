"""FRM: did messages arrive whole, and once?"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = ()
