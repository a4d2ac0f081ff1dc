"""Draws docs/images/drive.svg: some simulated drives on their made-up roads. No map, no dependencies.

    python scripts/draw_drive.py [FILE]

Left a delivery van for three hours in its home town, right a lorry for a day between towns; coloured by speed, dots
where they stood with the engine off. Promises the same picture for the same code.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.drive import EVENT_CODES, Drive, Truth
from signalkeep.simulate.roads import ARTERIAL_EVERY, METRES_PER_DEGREE, Region, Waypoint, crossing, exists, region
from signalkeep.simulate.scenarios import DELIVERY, LONG_HAUL, Habits

SIZE: Final = 460.0
START: Final = datetime(2026, 5, 6, 8, 0, tzinfo=UTC)
SPEEDS: Final = ((20.0, "#c0392b"), (40.0, "#e67e22"), (60.0, "#d4ac0d"), (95.0, "#27ae60"), (math.inf, "#2471a3"))
STYLE: Final = (
    "text{font:12px sans-serif;fill:#444}.s{stroke:#d5d8dc;stroke-width:.8}.a{stroke:#aab0b6;stroke-width:1.6}"
    ".m{stroke:#8d99a6;stroke-width:2.4}path{fill:none;stroke-linecap:round;stroke-linejoin:round}.d{stroke-width:2.2}"
)


class View(NamedTuple):
    """A square of the plane, drawn at a place of the picture."""

    x_m: float
    y_m: float
    half_m: float
    left: float

    def place(self, x_m: float, y_m: float) -> tuple[float, float]:
        scale = SIZE / (2 * self.half_m)
        return self.left + (x_m - self.x_m + self.half_m) * scale, 30 + (self.y_m + self.half_m - y_m) * scale

    def holds(self, x_m: float, y_m: float) -> bool:
        return max(abs(x_m - self.x_m), abs(y_m - self.y_m)) <= self.half_m


def path(points: Iterable[tuple[float, float]], kind: str) -> str:
    steps = " ".join(f"{'M' if number == 0 else 'L'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))
    return f'<path {kind} d="{steps}"/>' if steps else ""


def driven(habits: Habits, seed: int, hours: float, step_s: int) -> list[Truth]:
    """What is true of one vehicle, every few seconds."""
    drive = Drive(
        random.Random(seed),  # noqa: S311 - a reproducible drive, not a secret
        START,
        EVENT_CODES["teltonika"],
        habits=habits,
        roads=region(0, 1),
        coverage=Coverage("", habits, has_gaps=False),
    )
    found = []
    for second in range(step_s, int(hours * 3600), step_s):
        drive.step(START + timedelta(seconds=second))
        assert drive.truth is not None
        found.append(drive.truth)
    return found


def on_plane(roads: Region, truth: Truth) -> tuple[float, float]:
    east = (truth.longitude - roads.home.longitude) * math.cos(math.radians(truth.latitude))
    return east * METRES_PER_DEGREE, (truth.latitude - roads.home.latitude) * METRES_PER_DEGREE


def drawn_drive(roads: Region, view: View, truths: list[Truth]) -> list[str]:
    """The way in pieces of one colour, and the stops."""
    pieces, stops = list[str](), list[tuple[float, float]]()
    colour, points = "", list[tuple[float, float]]()
    for truth in truths:
        place = view.place(*on_plane(roads, truth))
        now = next(colour for below_kmh, colour in SPEEDS if truth.speed_kmh < below_kmh)
        if not truth.engine_on and (not stops or stops[-1] != place):
            stops.append(place)
        if points and place == points[-1]:
            continue
        points.append(place)
        if now != colour:
            pieces.append(path(points, f'class="d" stroke="{colour or now}"'))
            colour, points = now, [place]
    pieces.append(path(points, f'class="d" stroke="{colour}"'))
    return pieces + [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="#34495e"/>' for x, y in stops]


def drawn_streets(roads: Region, view: View) -> list[str]:
    """The streets of the home town that lie in view: whole lines as far as they go on."""
    town, found = roads.towns[0], []
    for line in range(-town.blocks, town.blocks + 1):
        for along in (True, False):
            kind = 'class="a"' if line % ARTERIAL_EVERY == 0 else 'class="s"'
            run: list[tuple[float, float]] = []
            for at in range(-town.blocks, town.blocks + 1):
                i, j = (at, line) if along else (line, at)
                here = crossing(town, i, j)
                if view.holds(*here):
                    run.append(view.place(*here))
                if not view.holds(*here) or not exists(town, i, j, int(along), int(not along)):
                    found.append(path(run if len(run) > 1 else [], kind))
                    run = []
            found.append(path(run if len(run) > 1 else [], kind))
    return found


def drawn_region(roads: Region, view: View) -> list[str]:
    """Ring, links, and the towns as their outlines."""

    def line(points: Iterable[Waypoint], kind: str) -> str:
        return path((view.place(point.x_m, point.y_m) for point in points), kind)

    found = [line(roads.ring(), 'class="m"')]
    for number, town in enumerate(roads.towns):
        edge = town.blocks
        corners = [(-edge, -edge), (edge, -edge), (edge, edge), (-edge, edge), (-edge, -edge)]
        outline = path((view.place(*crossing(town, i, j)) for i, j in corners), 'class="s" style="fill:#eef0f2"')
        found.insert(0, outline)
        if number:
            found.append(line(roads.link(number), 'class="m"' if town.is_motorway else 'class="a"'))
    return found


def picture() -> str:
    """The whole SVG."""
    roads = region(0, 1)
    van, lorry = driven(DELIVERY, 7, 3.0, 2), driven(LONG_HAUL, 12, 11.0, 30)
    places = [on_plane(roads, truth) for truth in van]
    middle = [(min(one) + max(one)) / 2 for one in zip(*places, strict=True)]
    near = View(middle[0], middle[1], 1500.0, 10.0)
    far = View(0.0, 0.0, 52_000.0, 30 + SIZE)
    width, height = 2 * SIZE + 40, SIZE + 70
    legend = [
        f'<text x="{20 + 120 * number}" y="{height - 12}" style="fill:{colour}">'
        + (f"below {below_kmh:g} km/h" if below_kmh < math.inf else "faster")
        + "</text>"
        for number, (below_kmh, colour) in enumerate(SPEEDS)
    ]
    clips = [
        f'<clipPath id="c{number}"><rect x="{view.left}" y="30" width="{SIZE}" height="{SIZE}"/></clipPath>'
        for number, view in enumerate((near, far))
    ]
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">',
        f"<style>{STYLE}</style>{''.join(clips)}",
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        '<text x="10" y="20">delivery, 3 hours; 3 km wide</text>',
        f'<text x="{far.left:g}" y="20">long-haul, 11 hours; 104 km wide</text>',
        '<g clip-path="url(#c0)">', *drawn_streets(roads, near), *drawn_drive(roads, near, van), "</g>",
        '<g clip-path="url(#c1)">', *drawn_region(roads, far), *drawn_drive(roads, far, lorry), "</g>",
        *legend, "</svg>",
    ]  # fmt: skip
    return "\n".join(line for line in body if line) + "\n"


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs/images/drive.svg"
    target.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
