"""Judging one day of one device: from its rows to flags, findings and score. `store.sweep` reads and writes them.

A day is judged in the order of device time, with what the device's last signals before it left to remember. What was
found at ingest is confirmed or withdrawn by that: a backlog that fills a gap explains it. What people have said of a
signal is applied last and beats every rule.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from signalkeep import limits
from signalkeep.model import Flag
from signalkeep.rules.contract import Dimension, Severity
from signalkeep.rules.days import DayJudged, DeviceDay, Past, in_order, judge_day
from signalkeep.rules.judge import Hit, Judge, Judged, Profile, asked_bit
from signalkeep.rules.reading import Reading, Recent
from signalkeep.rules.scores import overall, shares
from signalkeep.store.postgres import JsonText, Row
from signalkeep.store.rules import Tally, moment, reading_of
from signalkeep.store.sweep import FoundRow, JudgedDay

KEPT: Final = Flag.WEAK_KEY | Flag.FORCED  # flags that are no rule's and no person's
DAY_S: Final = 86_400
PAST_DAYS: Final = 7


class Known(msgspec.Struct, kw_only=True):
    """What the database says of a day besides its rows."""

    before: Sequence[Row] = ()  # the last signals before the day
    scores: Sequence[Row] = ()  # of the day and those before it, newest first
    model_attributes: frozenset[str] | None = None
    marks: Sequence[Row] = ()
    error_hits: Sequence[tuple[int, float]] = ()  # of the day before
    error_types: Sequence[Row] = ()
    codes: frozenset[tuple[str, str]] = frozenset()  # events that have a name
    now: datetime


def judge_rows(judge: Judge, profile: Profile, waiting: Row, rows: Sequence[Row], known: Known) -> JudgedDay:
    """Everything that a day comes to. `rows`: its signals in the order of arrival."""
    begins = datetime.combine(waiting["day"], datetime.min.time(), UTC)
    counters = _counters(waiting, known)
    readings = _readings(rows, known.codes)
    by_reading = {id(reading): row for reading, row in zip(readings, rows, strict=True)}
    recent = Recent(waiting["model"], profile)
    for reading in (reading_of(row) for row in known.before):
        judge.judge(reading, recent, profile)
    day = DeviceDay(
        device_number=waiting["device_number"],
        model=waiting["model"],
        begins_s=begins.timestamp(),
        readings=in_order(readings),
        expected_interval_s=waiting["expected_interval_s"],
        past=_past(waiting, known),
        model_attributes=known.model_attributes,
        records=len(rows) + counters["duplicates"],
        duplicates=counters["duplicates"],
        connections=counters["connections"],
    )
    ordered = [by_reading[id(reading)] for reading in day.readings]
    judged = judge_day(judge, profile, day, recent)
    verdicts = [_verdict(row, known.marks) for row in ordered]
    kept = [
        _as_found_at_ingest(row, one, reading, profile)
        for row, one, reading in zip(ordered, judged.judged, day.readings, strict=True)
    ]
    judged = DayJudged([_beaten(one, verdict) for one, verdict in zip(kept, verdicts, strict=True)], judged.unplaced)
    values = shares(day, judged)
    hits = Counter(hit.rule.id for one in judged.judged for hit in one.hits)
    hits.update(hit.rule.id for hit in judged.unplaced)
    present = Counter(name for reading in readings for name in reading.attributes)
    return JudgedDay(
        flags=_changes(ordered, judged.judged, verdicts),
        findings=[
            *_findings(ordered, judged, known.marks, begins),
            *_errors(ordered, judged.judged, known, begins),
        ],
        signals=len(rows),
        shares=[number for share in values.values() for number in (share.of, share.good)],
        overall=overall(values),
        hits=hits,
        attributes=present,
        seen={(reading.protocol, name) for reading in readings for name in reading.attributes},
        duplicate_to=counters["duplicate_to"],
        connections_to=counters["connections_to"],
        clears_earlier=_good_at_end(judged.judged) >= limits.CLEAR_AFTER_SIGNALS,
    )


def _as_found_at_ingest(row: Row, judged: Judged, reading: Reading, profile: Profile) -> Judged:
    """Of a record without a usable clock the time that it sent is not kept: what ingest said of that time stands."""
    if not row["flags"] & Flag.WEAK_KEY:
        return judged
    found = [
        one.rule
        for one in profile.alone
        if one.rule.dimension is Dimension.TIMELINESS and row["flags"] & one.rule.mask & ~judged.flags
    ]
    hits = [Hit(rule, reading.received_s, reading.received_s, "", False, rule.mask) for rule in found]
    flags = judged.flags | sum(rule.mask for rule in found)
    asked = judged.asked | (asked_bit(Dimension.TIMELINESS) if found else 0)
    return Judged(flags, (*judged.hits, *hits), asked)


def _readings(rows: Iterable[Row], codes: frozenset[tuple[str, str]]) -> list[Reading]:
    with_codes = {protocol for protocol, _ in codes}
    readings = []
    for row in rows:
        reading = reading_of(row)
        if reading.event_code is not None and reading.protocol in with_codes:
            reading.event_known = (reading.protocol, reading.event_code) in codes
        readings.append(reading)
    return readings


def _past(waiting: Row, known: Known) -> Past:
    present: Counter[str] = Counter()
    days = signals = 0
    for row in known.scores:
        if timedelta() < waiting["day"] - row["day"] <= timedelta(days=PAST_DAYS):
            days += 1
            signals += row["signals"]
            present.update(row["attributes"])
    return Past(days, signals, present)


def _counters(waiting: Row, known: Known) -> Mapping[str, int]:
    """Re-sends and connections of the day, from the device's counters at its end and at the end of the day before.

    They are of the day on which they were counted: of an old day that is judged again they stay as they were.
    """
    day = waiting["day"]
    same = next((row for row in known.scores if row["day"] == day), None)
    before = next((row for row in known.scores if row["day"] < day), None)
    found = {}
    for counter, name in (("duplicate", "duplicates"), ("connections", "connections")):
        now = waiting[counter]
        to = now if day >= known.now.date() - timedelta(days=1) else same[f"{counter}_to"] if same else None
        since = before[f"{counter}_to"] if before else 0 if waiting["created_at"].date() >= day else None
        found[name] = max(0, to - since) if to is not None and since is not None else 0
        found[f"{counter}_to"] = to if to is not None else (since if since is not None else now)
    return found


def _verdict(row: Row, marks: Sequence[Row]) -> tuple[Flag, frozenset[str] | None]:
    """What people say of a signal: a flag, and the rules that they overrule (None: all of them)."""
    at = row["device_time"] or row["received_at"]
    return _said([mark for mark in marks if mark["begins_at"] <= at <= mark["ends_at"]])


def _said(marks: Iterable[Row]) -> tuple[Flag, frozenset[str] | None]:
    """What marks come to, the oldest first: bad after good is bad, good after bad is good."""
    flag = Flag(0)
    overruled: frozenset[str] | None = frozenset()
    for mark in marks:
        if mark["verdict"] == "bad":
            flag, overruled = Flag.PERSON_BAD, frozenset()
        elif mark["rule"] is None:
            flag, overruled = Flag.PERSON_GOOD, None
        elif overruled is not None:
            flag, overruled = Flag.PERSON_GOOD, overruled | {mark["rule"]}
    return flag, overruled


def _beaten(judged: Judged, verdict: tuple[Flag, frozenset[str] | None]) -> Judged:
    """Without the hits that a person overrules."""
    _, overruled = verdict
    hits = tuple(hit for hit in judged.hits if overruled is not None and hit.rule.id not in overruled)
    if len(hits) == len(judged.hits):
        return judged
    flags = 0
    for hit in hits:
        flags |= hit.flags
    return Judged(flags, hits, judged.asked)


def _changes(
    rows: Sequence[Row], judged: Sequence[Judged], verdicts: Sequence[tuple[Flag, frozenset[str] | None]]
) -> list[tuple[datetime, int, int]]:
    changes = []
    for row, one, (said, _) in zip(rows, judged, verdicts, strict=True):
        flags = (row["flags"] & KEPT) | one.flags | said
        if flags != row["flags"]:
            changes.append((row["wire_time"], row["digest"], int(flags)))
    return changes


def _findings(rows: Sequence[Row], judged: DayJudged, marks: Sequence[Row], begins: datetime) -> list[FoundRow]:
    tallies: dict[str, Tally] = defaultdict(Tally)
    last_hit: dict[str, int] = {}
    for place, (row, one) in enumerate(zip(rows, judged.judged, strict=True)):
        for hit in one.hits:
            tallies[hit.rule.id].add(hit, row)
            last_hit[hit.rule.id] = place
    for hit in judged.unplaced:
        tallies[hit.rule.id].add(hit, None)
    dismissed = _dismissed(marks, begins)
    found = []
    for rule_id, tally in sorted(tallies.items()):
        assert tally.first is not None
        assert tally.last is not None
        hit = tally.last[0]
        after = len(rows) - 1 - last_hit.get(rule_id, len(rows))
        state = "cleared" if after >= limits.CLEAR_AFTER_SIGNALS else "confirmed"
        if dismissed is None or rule_id in dismissed:
            state = "dismissed"
        found.append(
            FoundRow(
                rule_id, hit.detail, tally.count, str(hit.rule.severity), state, hit.rule.version,
                moment(tally.begins_s), moment(tally.ends_s), _sample(*tally.first), _sample(*tally.last),
                tally.live_hits, tally.live_at,
            )
        )  # fmt: skip
    return found


def _dismissed(marks: Sequence[Row], begins: datetime) -> frozenset[str] | None:
    """Rules that a person has overruled for the whole day; None: all of them. A DAY rule may mark no signal."""
    ends = begins + timedelta(days=1)
    _, overruled = _said([mark for mark in marks if mark["begins_at"] <= begins and mark["ends_at"] >= ends])
    return overruled


def _errors(rows: Sequence[Row], judged: Sequence[Judged], known: Known, begins: datetime) -> list[FoundRow]:
    """Error types whose limit was reached within their window: the device is to be checked."""
    times: dict[int, list[float]] = defaultdict(list)
    for code, at_s in known.error_hits:
        times[code].append(at_s)
    hits: dict[int, tuple[Hit, Row]] = {}
    for row, one in zip(rows, judged, strict=True):
        for hit in one.hits:
            if hit.rule.error_type is not None and hit.rule.bit is not None:
                times[hit.rule.error_type].append(hit.at_s)
                hits[hit.rule.error_type] = (hit, row)
    dismissed = _dismissed(known.marks, begins)
    found = []
    for kind in known.error_types:
        code, rule_id = kind["code"], f"ERR-{kind['code']}"
        reached = _reached(sorted(times[code]), kind["hits_max"], kind["window_h"] * 3600.0, begins.timestamp())
        if reached is None or code not in hits:
            continue
        count, since_s, at_s = reached
        hit, row = hits[code]
        severity = Severity.ERROR if kind["critical"] else Severity.WARNING
        detail = f"{kind['description']}: {count} hits within {kind['window_h']} h, the limit is {kind['hits_max']}"
        sample = _sample(hit, row)
        found.append(
            FoundRow(
                rule_id, detail, count, str(severity),
                "dismissed" if dismissed is None or rule_id in dismissed else "confirmed", 1, moment(since_s),
                moment(at_s), sample, sample, count if hit.live else 0, moment(at_s) if hit.live else None,
            )
        )  # fmt: skip
    return found


def _reached(
    times: Sequence[float], hits_max: int, window_s: float, begins_s: float
) -> tuple[int, float, float] | None:
    """The fullest window that ends on the day: hits, the first and the last of them; None: all stay below the limit."""
    best: tuple[int, float, float] | None = None
    first = 0
    for last, at_s in enumerate(times):
        while times[first] < at_s - window_s:
            first += 1
        count = last - first + 1
        if at_s >= begins_s and count >= hits_max and (best is None or count > best[0]):
            best = (count, times[first], at_s)
    return best


def _good_at_end(judged: Sequence[Judged]) -> int:
    count = 0
    for one in reversed(judged):
        if any(hit.rule.severity is not Severity.INFO for hit in one.hits):
            break
        count += 1
    return count


def _sample(hit: Hit, row: Row | None) -> JsonText:
    said: dict[str, Any] = {"detail": hit.detail}
    if row is not None:
        names = (
            "device_time", "received_at", "latitude", "longitude", "speed_kmh", "journal_id", "seq", "record_no",
        )  # fmt: skip
        said |= {name: row[name] for name in names}
    return JsonText(msgspec.json.encode(said))
