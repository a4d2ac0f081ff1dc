"""TIM-01 to TIM-05: is the device's clock right? A wrong one is told by how far it is from the time of arrival.

No time is set right here: the text says what it would be, and a person decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

from signalkeep import limits as bounds
from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.reading import Reading
from signalkeep.rules.screen import INF

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_S: Final = 86_400.0
OLD_S: Final = 30 * DAY_S
ROLLOVER_S: Final = 1024 * 7 * DAY_S  # the week counter of the satellites' signal has ten bits
QUARTER_S: Final = 900.0  # every time zone is a multiple of it away from UTC
YEAR_2015_S: Final = 1_420_070_400.0
UNITS: Final = (
    (1e3, "seconds, read as milliseconds"),
    (1e6, "seconds, read as microseconds"),
    (1e-3, "milliseconds, read as seconds"),
    (1e-6, "microseconds, read as seconds"),
)


def in_words(seconds: float) -> str:
    """A duration with the unit that suits it."""
    size = abs(seconds)
    for unit_s, name in ((DAY_S, "d"), (3600.0, "h"), (60.0, "min")):
        if size >= 2 * unit_s:
            return f"{seconds / unit_s:.4g} {name}"
    return f"{seconds:.3g} s"


def date_of(time_s: float) -> str:
    """UTC, to the second; where no calendar reaches, the number."""
    try:
        return (EPOCH + timedelta(seconds=time_s)).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return f"{time_s:g} s"


def time_of(reading: Reading) -> float | None:
    """When it happened, as the device says; also where that cannot be used."""
    return reading.wire_s if reading.time_s is None else reading.time_s


def wrong_unit(reading: Reading, limits: Limits) -> Answer:
    """TIM-01."""
    sent_s = reading.wire_s
    if sent_s is None:
        return None
    received_s = reading.received_s
    if received_s < 2 * sent_s < 4 * received_s:
        return False
    for factor, unit in UNITS:
        if abs(sent_s * factor - received_s) <= limits["within_s"]:
            return f"sent as {date_of(sent_s)}: {unit}, it would be {date_of(sent_s * factor)}"
    return False


def in_the_future(reading: Reading, limits: Limits) -> Answer:
    """TIM-02."""
    time_s = time_of(reading)
    if time_s is None:
        return None
    ahead_s = time_s - reading.received_s
    if ahead_s <= limits["ahead_s"]:
        return False
    detail = f"{in_words(ahead_s)} ahead of its arrival"
    return f"{detail}: the clock is wrong" if ahead_s > limits["malfunction_s"] else detail


def too_old(reading: Reading, limits: Limits) -> Answer:
    """TIM-03."""
    time_s = time_of(reading)
    if time_s is None:
        return None
    age_s = reading.received_s - time_s
    if age_s <= limits["age_s"] and time_s >= limits["first_s"]:
        return False
    return f"{date_of(time_s)}: {in_words(age_s)} before its arrival"


def rolled_over(reading: Reading, limits: Limits) -> Answer:
    """TIM-04."""
    time_s = time_of(reading)
    if time_s is None:
        return None
    behind_s = reading.received_s - time_s
    within_s = limits["within_s"]
    if behind_s < ROLLOVER_S - within_s:
        return False
    off_s = (behind_s + ROLLOVER_S / 2) % ROLLOVER_S - ROLLOVER_S / 2
    if not abs(off_s) < within_s:  # also what is no number
        return False
    times = round((behind_s - off_s) / ROLLOVER_S)
    return f"{date_of(time_s)}, {times * 1024} weeks later it would be {date_of(time_s + times * ROLLOVER_S)}"


def time_zone(day: DeviceDay, limits: Limits) -> Iterator[DayHit]:
    """TIM-05. A backlog has delays of all lengths, a clock in another zone has one."""
    delays = {place: one.received_s - one.time_s for place, one in enumerate(day.readings) if one.time_s is not None}
    if len(delays) < limits["signals_min"]:
        return
    middle_s = median(delays.values())
    offset_s = round(middle_s / QUARTER_S) * QUARTER_S
    within_s = limits["within_s"]
    if abs(middle_s - offset_s) > within_s or abs(offset_s) < limits["offset_s_min"]:
        return
    if not -limits["ahead_s_max"] <= offset_s <= limits["behind_s_max"]:
        return
    marked = tuple(place for place, delay_s in delays.items() if abs(delay_s - offset_s) <= within_s)
    if len(marked) < limits["share_min"] * len(delays):
        return
    where = "behind" if offset_s > 0 else "ahead"
    yield DayHit(marked, f"the clock is {abs(offset_s) / 3600:g} h {where} in {len(marked)} of {len(delays)} signals")


RULES: Final = (
    Rule(
        id="TIM-01",
        title="Time in another unit",
        dimension=Dimension.TIMELINESS,
        severity=Severity.ERROR,
        scope=Scope.SIGNAL,
        check=wrong_unit,
        quiet=lambda _: {"wire_delay_s": (-OLD_S, OLD_S), "time_s": (YEAR_2015_S, INF)},
        meaning="The time makes sense only if it is read in another unit: seconds for milliseconds, or the other way "
        "round. The time of arrival stands in for it.",
        causes=(
            "an integrator's program sends another unit than the protocol says",
            "the decoder expects the unit of another version",
        ),
        actions=(
            "if an integrator sends the data, have them send the right unit",
            "else compare the raw bytes with the maker's protocol: `signalkeep decode`",
        ),
        source="GTFS-realtime validator E001; width: field knowledge",
        limits={"within_s": Limit(OLD_S, "s", "in the other unit it is as near to its arrival as this")},
        bit=22,
    ),
    Rule(
        id="TIM-02",
        title="Time in the future",
        dimension=Dimension.TIMELINESS,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=in_the_future,
        quiet=lambda limits: {"delay_s": (-limits["ahead_s"], INF)},
        meaning="The signal happened later than it arrived, so the device's clock is ahead. It never becomes the "
        "latest position: else that would stand still until the time has come.",
        causes=(
            "the clock runs free and is set from the satellites too seldom",
            "the device sends local time, see TIM-05",
            "our own clock is behind",
        ),
        actions=(
            "check this machine's clock: `signalkeep doctor`",
            "have the device set its clock from the satellites",
            "if it sends local time, name its time zone: `signalkeep devices set`",
        ),
        source="10 minutes: electronic logging devices, FMCSA; 60 s: the most that a latest position may be ahead",
        limits={
            "ahead_s": Limit(float(bounds.POSITION_FUTURE_S_MAX), "s", "more than this ahead"),
            "malfunction_s": Limit(600.0, "s", "above it the clock has failed, and does not only drift"),
        },
        bit=23,
    ),
    Rule(
        id="TIM-03",
        title="Time too long ago",
        dimension=Dimension.TIMELINESS,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=too_old,
        quiet=lambda limits: {"delay_s": (-INF, limits["age_s"]), "time_s": (limits["first_s"], INF)},
        meaning="The signal is older than a backlog usually is, or than any device of today. Most likely its clock was "
        "lost; then it would stand in a track of long ago.",
        causes=(
            "the clock began anew at 1970, 1980 or 2000 when the unit lost its power, and there was no fix yet",
            "the week counter of the satellites' signal turned over, see TIM-04",
            "an old memory was sent at last",
        ),
        actions=(
            "see whether the signals behind it have the right time: then nothing has to be done",
            "if it goes on, have the installer check antenna and backup battery",
        ),
        source="field knowledge",
        limits={
            "age_s": Limit(OLD_S, "s", "older than this when it arrived"),
            "first_s": Limit(YEAR_2015_S, "s", "before this time, counted from 1970; the default is 2015"),
        },
        bit=24,
    ),
    Rule(
        id="TIM-04",
        title="Week counter turned over",
        dimension=Dimension.TIMELINESS,
        severity=Severity.ERROR,
        scope=Scope.SIGNAL,
        check=rolled_over,
        quiet=lambda _: {"delay_s": (-INF, ROLLOVER_S / 2)},
        meaning="The time is a multiple of 1024 weeks in the past. The satellites count weeks up to 1023, and this "
        "receiver no longer knows which round it is; the time is right but for that.",
        causes=("the receiver's firmware is older than the round it was made for",),
        actions=(
            "ask the maker for a firmware that knows the round",
            "until then, its times can be read with the weeks added that the text names",
        ),
        source="traccar issue 5029: 7168 days less an hour; rounds ended in 1999-08, 2019-04 and end in 2038-11",
        limits={"within_s": Limit(DAY_S, "s", "as near to whole rounds as this", most=ROLLOVER_S / 2)},
        bit=25,
    ),
    Rule(
        id="TIM-05",
        title="Clock in another time zone",
        dimension=Dimension.TIMELINESS,
        severity=Severity.ERROR,
        scope=Scope.DAY,
        check=time_zone,
        meaning="Most signals of the day arrived a whole number of quarter hours before or after their own time. The "
        "clock is right but for the zone: the device sends local time where UTC is expected.",
        causes=(
            "the device was set to local time, or to the zone of its maker",
            "daylight saving time is on in the device",
        ),
        actions=(
            "set the device to UTC",
            "or name the zone that its clock runs in: `signalkeep devices set`",
        ),
        source="traccar issue 5427: 8 h ahead; Navixy's list of causes; share: field knowledge",
        limits={
            "within_s": Limit(180.0, "s", "as near to a quarter of an hour as this", most=QUARTER_S / 2),
            "signals_min": Limit(20.0, "", "fewer signals say nothing", least=1.0),
            "share_min": Limit(0.5, "", "of the day's signals must be off by the same", most=1.0),
            "offset_s_min": Limit(1800.0, "s", "a smaller offset is no zone", least=QUARTER_S),
            "ahead_s_max": Limit(14 * 3600.0, "s", "no zone is farther ahead"),
            "behind_s_max": Limit(12 * 3600.0, "s", "no zone is farther behind"),
        },
        bit=26,
    ),
)
