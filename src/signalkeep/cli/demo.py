"""The fleet of `run --demo`: registered units that drive until the demo ends. A role under the supervisor."""

from __future__ import annotations

import asyncio
import getpass
from typing import Annotated

import typer

from signalkeep import config, telemetry
from signalkeep.cli.common import ConfigOption, DataOption, run_async
from signalkeep.cli.roles import InstanceOption, ParentOption
from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.errors import SignalkeepError
from signalkeep.protocols.registry import ENCODERS
from signalkeep.retry import Backoff
from signalkeep.roles import RoleFile, stop_on_signals
from signalkeep.simulate.fleet import Fleet, Plan
from signalkeep.store import registry
from signalkeep.store.postgres import dsn_of
from signalkeep.store.schema import connect_migrated

SECONDS_PER_RECORD = 5.0


def fleet(
    devices: Annotated[int, typer.Option("--devices", min=1)],
    port: Annotated[int, typer.Option("--port")],
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    parent_fd: ParentOption = None,
) -> None:
    """Register simulated units and let them drive until told to stop."""
    settings = config.load(data, config_file)
    telemetry.configure(settings.log, "fleet")
    plan = Plan(
        protocol="teltonika",
        port=port,
        devices=devices,
        rate_per_s=devices / SECONDS_PER_RECORD,
        duration_s=0,
    )

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        file = RoleFile(settings.run_root, "fleet", instance or 0)
        demo = Fleet(plan, ENCODERS[plan.protocol], SystemClock(), oracle=None)
        await _register(settings, demo.numbers, stop)
        file.ready()
        driving = asyncio.create_task(demo.run(), name="fleet")
        try:
            await stop.wait()
            demo.stop()
            await driving
        finally:
            driving.cancel()
            file.gone()

    run_async(body())


async def _register(settings: Settings, numbers: list[str], stop: asyncio.Event) -> None:
    """As soon as the database answers."""
    backoff = Backoff()
    while not stop.is_set():
        try:
            connection = await connect_migrated(
                dsn_of(settings), application="signalkeep demo", settings=settings.database
            )
            try:
                for number in numbers:
                    await registry.register(connection, number, name=f"demo {number[-4:]}", actor=getpass.getuser())
                return
            finally:
                await connection.close()
        except SignalkeepError:
            pass
        await asyncio.sleep(backoff.next_s())
