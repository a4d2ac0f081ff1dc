"""What a fleet is to do, checked as a whole, and the numbers of its devices.

Promises: a plan that exists can be run; one that makes no sense is refused with what to do. Values only.
"""

from __future__ import annotations

import math
import ssl
from datetime import datetime
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.simulate.answers import ANSWERS
from signalkeep.simulate.faults import kinds_of
from signalkeep.simulate.scenarios import habits_of
from signalkeep.simulate.track import Track, TrackPart

FIRST_NUMBER: Final = 356307040000000
GRACE_S: Final = 30.0
CUT_RATE: Final = 0.01
NEWEST_FIRST_SHARE: Final = 0.25
TRANSPORTS: Final = {"teltonika": ("tcp", "udp"), "json": ("tcp",)}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet is to do."""

    protocol: str
    host: str = "127.0.0.1"
    port: int
    transport: str = "tcp"
    tls: ssl.SSLContext | None = None
    devices: int
    rate_per_s: float  # records of the whole fleet
    duration_s: float  # 0: until told to stop
    grace_s: float = GRACE_S
    start: datetime | None = None  # of the records' times; None: now
    seed: int = 1
    first_number: int = FIRST_NUMBER
    scenario: str = "mixed"
    gaps: bool = True
    drift: bool = True
    newest_first: float = NEWEST_FIRST_SHARE  # of the units, send a backlog from its end
    wrong_clocks: float = 0.0  # share of the units
    track: Track | None = None  # to drive along, instead of made-up roads
    as_recorded: bool = False  # records at the track's own times, not at an even rate
    speed_factor: float = 1.0  # along the track
    faults: tuple[str, ...] = ()  # kinds that are planted
    faults_per_unit: float = 1.0
    cut_rate: float = CUT_RATE  # share of the packets whose connection the device itself cuts
    answer_s: float = limits.SIMULATED_ANSWER_S_MAX
    retry_s: float = limits.SIMULATED_RETRY_S_MIN  # pause after the first failure; doubles with each in a row

    def __post_init__(self) -> None:
        if self.protocol not in ANSWERS:
            raise CallerError(
                f"{self.protocol}: no virtual device speaks this protocol",
                hint=f"Use one of {', '.join(ANSWERS)}.",
            )
        if self.transport not in TRANSPORTS[self.protocol]:
            raise CallerError(
                f"{self.protocol} over {self.transport}: no virtual device speaks it that way",
                hint=f"{self.protocol} goes over {' or '.join(TRANSPORTS[self.protocol])}.",
            )
        if self.tls is not None and self.transport != "tcp":
            raise CallerError(f"TLS over {self.transport}: only TCP can be encrypted", hint="Leave --tls out.")
        habits_of(self.scenario, 0.0)
        if not 1 <= self.devices <= limits.SIMULATED_DEVICES_MAX:
            raise CallerError(f"{self.devices} devices: from 1 to {limits.SIMULATED_DEVICES_MAX} can be simulated")
        if not (0 < self.rate_per_s < math.inf and 0 <= self.duration_s < math.inf and self.grace_s >= 0):
            raise CallerError("the rate must be above 0, duration and grace not below 0")
        if not 0 <= self.cut_rate < 1:
            raise CallerError(f"a cut rate of {self.cut_rate}: it is a share, from 0 to below 1")
        if not 0 <= self.wrong_clocks <= 1:
            raise CallerError(f"wrong clocks of {self.wrong_clocks}: it is a share of the units, from 0 to 1")
        if not 0 < self.speed_factor < math.inf:
            raise CallerError(f"a speed factor of {self.speed_factor}: it must be above 0")
        if self.faults:
            self._check_faults()
        if self.start is not None and self.start.tzinfo is None:
            raise CallerError("the start has no time zone", hint="Write it like 2026-05-01T08:00:00Z.")
        if not 10**14 <= self.first_number <= 10**15 - 10 * limits.SIMULATED_DEVICES_MAX:
            raise CallerError(f"{self.first_number}: the first device number must have 15 digits, and room above it")

    def _check_faults(self) -> None:
        kinds_of(",".join(self.faults))
        if not 0 < self.faults_per_unit < math.inf:
            raise CallerError(f"{self.faults_per_unit} faults per unit: it must be above 0")
        if self.duration_s == 0:
            raise CallerError(
                "faults are planted before a run begins, so it must have an end", hint="Give a --duration."
            )
        if self.rate_per_s * self.duration_s > limits.SIMULATED_FAULTY_RECORDS_MAX:
            raise CallerError(
                f"more than {limits.SIMULATED_FAULTY_RECORDS_MAX} records with faults cannot be made ahead",
                hint="Lower --rate or --duration.",
            )
        if self.wrong_clocks:
            raise CallerError(
                "wrong clocks have no label in the truth of planted faults",
                hint="Plant past_clock, time_zone or week_rollover instead.",
            )

    def track_part(self, index: int) -> TrackPart:
        """Where on the track a unit begins."""
        assert self.track is not None
        return TrackPart(
            track=self.track, share=index / self.devices, speed_factor=self.speed_factor, as_recorded=self.as_recorded
        )


def device_numbers(first_number: int, devices: int) -> list[str]:
    """Consecutive 15-digit numbers: 14 digits counted up from those of `first_number`, a Luhn check digit."""
    return [_with_check_digit(str(first_number // 10 + index)) for index in range(devices)]


def _with_check_digit(digits: str) -> str:
    """Luhn: every second digit doubled, from the right, beginning before the check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return f"{digits}{-total % 10}"
