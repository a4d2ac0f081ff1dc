"""The block of `status` about services: what is not well, why and since when, and how many incidents are open."""

from __future__ import annotations

from signalkeep.cli.common import out
from signalkeep.store.services import Overview


def show_services(services: Overview) -> None:
    machines = f"{services.hosts} machine{'' if services.hosts == 1 else 's'}"
    out.print(f"services  {services.services} on {machines}, {services.unwell_count or 'none'} not well", markup=False)
    for one in services.unwell:
        place = f"{one.name} on {one.host}" if one.host else one.name
        out.print(f"{one.state:<9} {place} since {one.since:%Y-%m-%d %H:%M:%S} UTC: {one.why}", markup=False)
    if services.open or services.acknowledged:
        taken = f", {services.acknowledged} that somebody takes care of" if services.acknowledged else ""
        out.print(f"incidents {services.open} open{taken}", markup=False)
