"""FLT: is it us? What many devices show at once is not the fault of any one of them."""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Rule

RULES: Final[tuple[Rule, ...]] = ()
