"""`gateway`, `relay`, `ingest`, `monitor`: one role as a process of its own, as `run` or a unit file starts them.

With `broker.url` set, `ingest` is a worker that takes messages from RabbitMQ, and `relay` brings them there.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from signalkeep import __version__, config, limits, telemetry
from signalkeep.cli.common import ConfigOption, DataOption, run_async
from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.errors import SettingsError
from signalkeep.roles import RoleFile, lower_priority, prepare_directories, refuse_unsafe_disk, stop_on_signals
from signalkeep.vitals import Heart, Report

ParentOption: TypeAlias = Annotated[int | None, typer.Option("--parent-fd", hidden=True)]
InstanceOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--instance", help="number of this process among its role", show_default="its pid"),
]

log = telemetry.get_logger()


def gateway(
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    share_ports: Annotated[bool, typer.Option("--share-ports", help="join other gateways on the same ports")] = False,
    parent_fd: ParentOption = None,
) -> None:
    """Listen to devices: journal what they send and acknowledge it when it is durable."""
    from signalkeep.gateway.listen import probe_ports
    from signalkeep.gateway.report import report
    from signalkeep.gateway.service import GatewayService
    from signalkeep.journal.files import LocalFileSystem

    settings = prepare(data, config_file, "gateway")
    if not share_ports:
        probe_ports(settings.gateway.host, settings.gateway.ports, settings.gateway.served_udp())

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        service = GatewayService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
        async with living(settings, "gateway", instance, lambda: report(service)) as file:
            await service.run(lambda ports: file.ready(ports=ports, journal=str(service.writer.journal_id)))

    run_async(body())


def relay(
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    parent_fd: ParentOption = None,
) -> None:
    """Send what the journals of this machine hold to RabbitMQ, until the database has it. Needs `broker.url`."""
    from signalkeep.broker.service import RelayService
    from signalkeep.journal.files import LocalFileSystem

    settings = prepare(data, config_file, "relay")
    if not settings.broker.enabled:
        raise SettingsError(
            "there is no broker to send to", hint="Set broker.url; without it `signalkeep ingest` reads the journals."
        )
    lower_priority(limits.INGEST_NICE)

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        service = RelayService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
        async with living(settings, "relay", instance, service.report) as file:
            await service.run(on_ready=file.ready)

    run_async(body())


def ingest(
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    parent_fd: ParentOption = None,
) -> None:
    """Turn what the journals of this machine hold, or what RabbitMQ brings, into rows in PostgreSQL, exactly once."""
    from signalkeep.broker.consumer import Consumer
    from signalkeep.ingest.service import IngestService, books_for
    from signalkeep.ingest.worker import Worker
    from signalkeep.journal.files import LocalFileSystem

    settings = prepare(data, config_file, "ingest")
    lower_priority(limits.INGEST_NICE)  # devices get their answers first, rows come later

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        service: IngestService | Worker
        if settings.broker.enabled:
            source = Consumer(settings.broker)
            service = Worker(
                settings, source, make_books=books_for(settings, SystemClock()), clock=SystemClock(), stop=stop
            )
        else:
            service = IngestService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
        async with living(settings, "ingest", instance, service.report) as file:
            await service.run(on_ready=file.ready)

    run_async(body())


def monitor(
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    parent_fd: ParentOption = None,
) -> None:
    """Answer /livez, /readyz and /metrics about this core over HTTP. Works whatever else is missing."""
    from signalkeep.journal.files import LocalFileSystem
    from signalkeep.monitor.service import MonitorService

    settings = prepare(data, config_file, "monitor")

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        service = MonitorService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
        async with living(settings, "monitor", instance, service.report) as file:
            await service.run(lambda port: file.ready(ports={"monitor": port}))

    run_async(body())


@asynccontextmanager
async def living(
    settings: Settings, role: str, instance: int | None, ask: Callable[[], Report]
) -> AsyncIterator[RoleFile]:
    """The life of a role: its beats, its announcement, and what the log says of its beginning and end."""
    number = os.getpid() if instance is None else instance
    file = RoleFile(settings.run_root, role, number)
    gc.freeze()  # what is there now stays for ever, and little of what comes is garbage in cycles
    gc.set_threshold(*limits.GARBAGE_THRESHOLDS)
    log.info("role starts", version=__version__, pid=os.getpid(), instance=number, data=str(settings.data))
    try:
        async with Heart(settings.run_root, role, number, clock=SystemClock(), ask=ask):
            yield file
    finally:
        file.gone()
    log.info("role has stopped", version=__version__, pid=os.getpid(), instance=number)


def prepare(data: Path | None, config_file: Path | None, role: str) -> Settings:
    """What a role does first: settings, log, directories. Raises SignalkeepError."""
    settings = config.load(data, config_file)
    telemetry.configure(settings.log, role)
    prepare_directories(settings)
    refuse_unsafe_disk(settings)
    return settings
