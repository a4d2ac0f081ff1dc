"""The block of `status` about services: what is not well, why and since when, and how many incidents are open."""

from __future__ import annotations

from signalkeep.cli.common import out
from signalkeep.store.services import Overview


def show_services(services: Overview) -> None:
    machines = f"{services.hosts} machine{'' if services.hosts == 1 else 's'}"
    found = f"{services.unwell_count} not well" if services.unwell_count else "all well"
    out.print(f"services  {services.services} on {machines}, {found}", markup=False)
    for one in services.unwell:
        place = f"{one.name} on {one.host}" if one.host else one.name
        out.print(f"{one.state:<9} {place} since {one.since:%Y-%m-%d %H:%M:%S} UTC: {one.why}", markup=False)
    if services.open or services.acknowledged:
        taken = f", {services.acknowledged} that somebody takes care of" if services.acknowledged else ""
        out.print(f"incidents {services.open} open{taken}", markup=False)
