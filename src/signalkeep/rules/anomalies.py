"""FLT: is it us? What many devices show at once is not the fault of any one of them.

All three look at the last whole hour of the fleet, and compare it with what is usual. They mark no signals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from math import cos, floor, radians, sin
from typing import Final, TypeAlias

from signalkeep.rules.contract import Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.fleet import Doubtful, FleetHit, FleetView, Group
from signalkeep.rules.geo import EARTH_RADIUS_M

Cell: TypeAlias = tuple[int, int, int]
"""A cube of space, counted from the earth's centre: so the date line and the poles are places like any other."""


def regression(view: FleetView, limits: Limits) -> Iterable[FleetHit]:
    """FLT-01."""
    for group in view.groups:
        if group.signals + group.quarantined < limits["records_min"]:
            continue
        if group.past_signals + group.past_quarantined < limits["records_min"]:
            continue  # nothing is usual yet
        found = [text for text in (_marked(group, limits), _quarantined(group, limits)) if text]
        if found:
            yield FleetHit(f"{group.protocol} {group.model}".strip(), "; ".join(found))


def _marked(group: Group, limits: Limits) -> str:
    now, past = _share(group.hits, group.signals), _share(group.past_hits, group.past_signals)
    return _text("marked", group.hits, group.signals, now, past, limits)


def _quarantined(group: Group, limits: Limits) -> str:
    records = group.signals + group.quarantined
    now = _share(group.quarantined, records)
    past = _share(group.past_quarantined, group.past_signals + group.past_quarantined)
    return _text("in quarantine", group.quarantined, records, now, past, limits)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _text(what: str, part: int, whole: int, now: float, past: float, limits: Limits) -> str:
    """What there is to say, or nothing."""
    if part < limits["hits_min"] or now <= limits["factor"] * max(past, limits["share_min"]):
        return ""
    return f"{100 * now:.1f} % of {whole} {what}, usually {100 * past:.1f} %"


def volume(view: FleetView, limits: Limits) -> Iterable[FleetHit]:
    """FLT-02. The band is that of the weeks before: half of the least to twice the most."""
    usual = view.usual
    if len(usual) < limits["weeks_min"] or max(usual) < limits["signals_min"]:
        return
    least, most = min(usual), max(usual)
    numbers = f"{view.signals} signals in the hour, {least} to {most} in the same hour of {len(usual)} weeks"
    if view.signals < limits["low"] * least:
        yield FleetHit("volume", f"too few: {numbers}")
    elif view.signals > limits["high"] * most:
        yield FleetHit("volume", f"too many: {numbers}")


def area(view: FleetView, limits: Limits) -> Iterable[FleetHit]:
    """FLT-03. The fullest cells first; a device that was counted for one is not counted for its neighbour."""
    cell_km = limits["cell_km"]
    cells: defaultdict[Cell, list[Doubtful]] = defaultdict(list)
    for one in view.doubtful:
        if one.jammed or one.count >= limits["positions_min"]:
            cells[cell_of(one, cell_km)].append(one)
    enough = max(limits["devices"], limits["share"] * view.active_devices)
    for centre in sorted(cells, key=lambda cell: (-len(cells[cell]), cell)):
        near = [cell for cell in neighbourhood(centre) if cell in cells]
        devices = [one for cell in near for one in cells[cell]]
        jammed = sum(one.jammed for one in devices)
        if len(devices) <= enough and jammed <= limits["devices"]:
            continue
        for cell in near:
            cells[cell] = []
        yield _area_hit(devices, jammed, cell_km)


def _area_hit(devices: Sequence[Doubtful], jammed: int, cell_km: float) -> FleetHit:
    middle = sorted(devices, key=lambda one: (one.latitude, one.longitude))[len(devices) // 2]
    place = f"{middle.latitude:.2f}, {middle.longitude:.2f}"
    says = f", {jammed} of them report jamming" if jammed else ""
    return FleetHit(place, f"{len(devices)} devices with doubted positions within {3 * cell_km:.0f} km{says}")


def cell_of(one: Doubtful, cell_km: float) -> Cell:
    latitude, longitude = radians(one.latitude), radians(one.longitude)
    cells = EARTH_RADIUS_M / 1000 / cell_km
    return (
        floor(cos(latitude) * cos(longitude) * cells),
        floor(cos(latitude) * sin(longitude) * cells),
        floor(sin(latitude) * cells),
    )


def neighbourhood(cell: Cell) -> Iterable[Cell]:
    """The cell and all that touch it: a cluster may lie across a border."""
    x, y, z = cell
    return ((x + dx, y + dy, z + dz) for dx, dy, dz in product((-1, 0, 1), repeat=3))


REGRESSION: Final = Rule(
    id="FLT-01",
    title="A whole model got worse",
    dimension=Dimension.VALIDITY,
    severity=Severity.ERROR,
    scope=Scope.FLEET,
    check=regression,
    meaning="Of one protocol and model, far more records than in the seven days before are marked by rules, or cannot "
    "be decoded. Many devices do not break in the same hour: the software did.",
    causes=(
        "a new version of signalkeep reads this model wrongly",
        "the maker rolled out a firmware with another format",
        "a rule or a limit was changed",
    ),
    actions=(
        "compare with the time of the last upgrade; if it fits, go back and tell us",
        "look at what is set aside: `signalkeep quarantine list`, and read a frame: `signalkeep decode`",
        "if the firmware changed, ask the maker what else did; what was set aside can be released later",
    ),
    source="field knowledge: three times the share of the last seven days",
    limits={
        "factor": Limit(3.0, "", "more than so many times the usual share", least=1.0),
        "share_min": Limit(0.005, "", "the usual share is taken to be at least this", most=1.0),
        "hits_min": Limit(10.0, "", "fewer records may be chance", least=1.0),
        "records_min": Limit(100.0, "", "fewer records, now or before, say nothing", least=1.0),
    },
)
VOLUME: Final = Rule(
    id="FLT-02",
    title="Unusual number of signals",
    dimension=Dimension.COMPLETENESS,
    severity=Severity.WARNING,
    scope=Scope.FLEET,
    check=volume,
    meaning="In this hour the whole fleet sent far fewer or far more signals than in the same hour of the weeks "
    "before. Too few mean that something between the vehicles and us is broken.",
    causes=(
        "a gateway, its network or its certificate is out of order",
        "the mobile operator has an outage",
        "a holiday, or a fleet that has grown or left",
        "a backlog that comes in after an outage, where there are too many",
    ),
    actions=(
        "look at our own side first: `signalkeep status`, `signalkeep doctor`",
        "if all is well here, see whether the missing devices have the operator in common",
        "if the fleet has changed, wait: in some weeks this is the usual number",
    ),
    source="Elementary's volume anomalies; half and twice: field knowledge",
    limits={
        "low": Limit(0.5, "", "fewer than this share of the least of the weeks", most=1.0),
        "high": Limit(2.0, "", "more than so many times the most of the weeks", least=1.0),
        "weeks_min": Limit(2.0, "", "fewer weeks make nothing usual", least=1.0),
        "signals_min": Limit(100.0, "", "fleets with fewer signals in an hour are too small for it", least=1.0),
    },
)
AREA: Final = Rule(
    id="FLT-03",
    title="Many devices in one area",
    dimension=Dimension.ACCURACY,
    severity=Severity.WARNING,
    scope=Scope.FLEET,
    check=area,
    meaning="In one area many devices have doubted positions at once, or report jamming: that is an event of the area. "
    "The devices are not to blame, and their positions there are not to be trusted.",
    causes=(
        "satellite signals are jammed or spoofed, near borders, ports and airports",
        "a place without sky where many vehicles stand: a depot's hall, a ferry",
        "a new antenna mast or another strong sender nearby",
    ),
    actions=(
        "trust no positions from there until it is over, and send nobody to the vehicles",
        "see whether aviation or the regulator reports interference",
        "if it is your depot and comes every day, mute it",
    ),
    source="field knowledge: more than 5 devices and 1 % of the fleet within 30 km",
    limits={
        "devices": Limit(5.0, "", "more devices than this; so many alone, if they report jamming", least=1.0),
        "share": Limit(0.01, "", "and more than this share of the active devices", most=1.0),
        "cell_km": Limit(10.0, "km", "edge of a cell; a cell and its neighbours count together", least=1.0),
        "positions_min": Limit(3.0, "", "a device with fewer doubted positions in the hour is left out", least=1.0),
    },
)

RULES: Final = (REGRESSION, VOLUME, AREA)
