"""What all connections and datagram ports of one gateway process share: journal, valve, policy, limits and counts.

Every refusal is counted here, and the next tally in the journal takes it along. Knows no socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalkeep.clock import Clock
from signalkeep.gateway.intake import Intake
from signalkeep.gateway.policy import Policy
from signalkeep.gateway.stats import GatewayStats
from signalkeep.journal.writer import JournalWriter
from signalkeep.model import Reason
from signalkeep.sections import GatewaySettings

if TYPE_CHECKING:
    from signalkeep.gateway.tcp import TcpConnection


class Shared:
    """One per process."""

    def __init__(
        self, *, writer: JournalWriter, intake: Intake, policy: Policy, clock: Clock, settings: GatewaySettings
    ) -> None:
        self.writer = writer
        self.intake = intake
        self.policy = policy
        self.settings = settings
        self.stats = GatewayStats()
        self.connections: dict[TcpConnection, None] = {}  # the oldest first
        self.connections_by_address: dict[str, int] = {}
        self.held = 0  # frames that wait for the disk
        self.refusals: dict[str, int] = {}  # since the last tally
        self.monotonic = clock.monotonic
        self._clock = clock

    def count(self, reason: Reason) -> None:
        """Count a refusal."""
        for counts in (self.refusals, self.stats.refusals):
            counts[reason] = counts.get(reason, 0) + 1

    def now_us(self) -> int:
        """received_at: microseconds since 1970, UTC."""
        return round(self._clock.now().timestamp() * 1_000_000)

    def enter(self, address: str) -> bool:
        """One more connection of this address; False if it has as many as it may."""
        open_now = self.connections_by_address.get(address, 0)
        if open_now >= self.settings.connections_per_address_max:
            return False
        self.connections_by_address[address] = open_now + 1
        return True

    def leave(self, address: str) -> None:
        """One less."""
        left = self.connections_by_address[address] - 1
        if left:
            self.connections_by_address[address] = left
        else:
            del self.connections_by_address[address]
