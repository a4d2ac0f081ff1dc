"""`simulate`: run a fleet of virtual devices against a gateway and say what became of every record.

Ends by itself after the duration, or at SIGINT and SIGTERM; what is not acknowledged then is sent until
the grace period is over. Exit code 1 if something stayed unconfirmed. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from signalkeep.cli import simulate_options as options
from signalkeep.cli.common import JsonOption, err, out, print_json, run_async
from signalkeep.clock import SystemClock
from signalkeep.protocols.contract import Encoder
from signalkeep.protocols.registry import ENCODERS, get
from signalkeep.simulate import fleet
from signalkeep.simulate.faulty import write_truth
from signalkeep.simulate.fleet import Fleet, Plan, raise_descriptor_limit
from signalkeep.simulate.oracle import OracleWriter
from signalkeep.simulate.plan import CUT_RATE
from signalkeep.simulate.unit import Counts

PROGRESS_S: Final = 0.25


class Report(msgspec.Struct, frozen=True):
    """What a run did, in records unless the name says otherwise."""

    devices: int
    generated: int
    sent: int
    resent: int
    told_safe: int
    unconfirmed: int
    packets: int
    connections: int
    own_cuts: int
    failed_connections: int
    gaps: int
    last_failure: str


ROWS: Final = (
    ("devices", "devices"),
    ("generated", "records generated"),
    ("sent", "records sent, with re-sends"),
    ("resent", "records sent again"),
    ("told_safe", "records told safe"),
    ("unconfirmed", "records unconfirmed"),
    ("packets", "packets"),
    ("connections", "connections"),
    ("own_cuts", "connections cut on purpose"),
    ("failed_connections", "connections refused, cut or answered wrongly"),
    ("gaps", "times without network"),
)


def simulate(
    *,
    devices: options.Devices = 10,
    rate: options.Rate = None,
    duration: options.Duration = 60.0,
    protocol: options.Protocol = "teltonika",
    oracle: options.Oracle = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = None,
    transport: options.Transport = "tcp",
    tls: options.Tls = False,
    tls_ca: options.TlsCa = None,
    tls_insecure: options.TlsInsecure = False,
    scenario: options.Scenario = "mixed",
    track: options.TrackFile = None,
    speed_factor: options.SpeedFactor = 1.0,
    gaps: options.Gaps = True,
    drift: options.Drift = True,
    wrong_clocks: options.WrongClocks = 0.0,
    faults: options.Faults = None,
    fault_rate: options.FaultRate = None,
    truth: options.TruthFile = None,
    start: options.Start = None,
    seed: options.Seed = 1,
    first_number: options.FirstNumber = fleet.FIRST_NUMBER,
    cut_rate: options.CutRate = CUT_RATE,
    grace: options.Grace = fleet.GRACE_S,
    as_json: JsonOption = False,
) -> None:
    """Drive virtual vehicles that send to a gateway, and keep what it does not acknowledge."""
    along = options.track_of(track, speed_factor)
    kinds, faults_per_unit = options.faults_of(faults, fault_rate, truth, oracle)
    plan = Plan(
        protocol=protocol,
        host=host,
        port=get(protocol).default_port if port is None else port,
        transport=transport,
        tls=options.tls_of(wanted=tls, ca=tls_ca, insecure=tls_insecure),
        devices=devices,
        rate_per_s=options.rate_of(along, speed_factor, devices) if rate is None else rate,
        duration_s=duration,
        grace_s=grace,
        start=start,
        seed=seed,
        first_number=first_number,
        scenario=scenario,
        gaps=gaps,
        drift=drift,
        wrong_clocks=wrong_clocks,
        track=along,
        as_recorded=rate is None,
        speed_factor=speed_factor,
        faults=kinds,
        faults_per_unit=faults_per_unit,
        cut_rate=cut_rate,
    )
    raise_descriptor_limit(devices)
    with OracleWriter(oracle) if oracle else nullcontext() as writer:
        counts = run_async(_run(plan, ENCODERS[protocol], writer, truth))
    _print(report_of(plan, counts), as_json=as_json)


def report_of(plan: Plan, counts: Counts) -> Report:
    """The counts of a run under the names that `--json` prints."""
    return Report(
        devices=plan.devices,
        generated=counts.generated,
        sent=counts.sent,
        resent=counts.resent,
        told_safe=counts.told_safe,
        unconfirmed=counts.unconfirmed,
        packets=counts.packets,
        connections=counts.connections,
        own_cuts=counts.own_cuts,
        failed_connections=counts.failures,
        gaps=counts.gaps,
        last_failure=counts.last_failure,
    )


async def _run(plan: Plan, encoder: Encoder, oracle: OracleWriter | None, truth: Path | None) -> Counts:
    virtual = Fleet(plan, encoder, SystemClock(), oracle)
    if plan.faults:
        _note_faults(virtual, truth)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        virtual.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    showing = asyncio.create_task(_show(plan, virtual.counts, err)) if err.is_terminal else None
    try:
        return await virtual.run()
    finally:
        if showing:
            showing.cancel()
            await asyncio.wait([showing])


def _note_faults(virtual: Fleet, truth: Path | None) -> None:
    """Before anything is sent: where the faults are, and which kinds found no place."""
    if truth is not None:
        write_truth(truth, virtual.planted)
    kinds = len({one.kind for one in virtual.planted})
    err.print(f"planted {len(virtual.planted)} faults of {kinds} kinds", markup=False)
    if virtual.no_place:
        err.print(f"no place in these drives: {', '.join(sorted(virtual.no_place))}", markup=False)


async def _show(plan: Plan, counts: Counts, console: Console) -> None:
    """Follow the counts on a terminal until cancelled."""
    total = plan.rate_per_s * plan.duration_s or None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} told safe, {task.fields[waiting]} waiting, {task.fields[cuts]} cuts"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"{plan.devices} {plan.protocol} devices", total=total, waiting=0, cuts=0)
        while True:
            progress.update(
                bar,
                completed=counts.told_safe,
                waiting=counts.unconfirmed,
                cuts=counts.own_cuts + counts.failures,
            )
            await asyncio.sleep(PROGRESS_S)


def _print(report: Report, *, as_json: bool) -> None:
    """Exit code 1 if something stayed unconfirmed."""
    if as_json:
        print_json(report)
    else:
        _print_table(report)
        if report.unconfirmed and report.last_failure:
            err.print(f"the last failure was: {report.last_failure}", markup=False)
    if report.unconfirmed:
        raise typer.Exit(1)


def _print_table(report: Report) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, label in ROWS:
        style = "bold red" if name == "unconfirmed" and report.unconfirmed else ""
        table.add_row(label, f"{getattr(report, name):,}", style=style)
    out.print(table)
