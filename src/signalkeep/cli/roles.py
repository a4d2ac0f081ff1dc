"""`gateway` and `ingest`: one role as a process of its own, as `run` starts them or as a unit file does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from signalkeep import config, telemetry
from signalkeep.cli.common import ConfigOption, DataOption, run_async
from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.roles import RoleFile, prepare_directories, stop_on_signals

ParentOption: TypeAlias = Annotated[int | None, typer.Option("--parent-fd", hidden=True)]
InstanceOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--instance", help="number of this process among its role", show_default="its pid"),
]


def gateway(
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    share_ports: Annotated[bool, typer.Option("--share-ports", help="join other gateways on the same ports")] = False,
    parent_fd: ParentOption = None,
) -> None:
    """Listen to devices: journal what they send and acknowledge it when it is durable."""
    from signalkeep.gateway.listen import probe_ports
    from signalkeep.gateway.service import GatewayService
    from signalkeep.journal.files import LocalFileSystem

    settings = _prepare(data, config_file, "gateway")
    if not share_ports:
        probe_ports(settings.gateway.host, settings.gateway.ports, settings.gateway.served_udp())

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        service = GatewayService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
        file = RoleFile(settings.run_root, "gateway", os.getpid() if instance is None else instance)
        try:
            await service.run(lambda ports: file.ready(ports=ports, journal=str(service.writer.journal_id)))
        finally:
            file.gone()

    run_async(body())


def ingest(
    data: DataOption = None,
    config_file: ConfigOption = None,
    instance: InstanceOption = None,
    parent_fd: ParentOption = None,
) -> None:
    """Turn what the journals hold into rows in PostgreSQL, exactly once."""
    from signalkeep.ingest.service import IngestService
    from signalkeep.journal.files import LocalFileSystem

    settings = _prepare(data, config_file, "ingest")

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, parent_fd)
        file = RoleFile(settings.run_root, "ingest", os.getpid() if instance is None else instance)
        service = IngestService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
        try:
            await service.run(on_ready=file.ready)
        finally:
            file.gone()

    run_async(body())


def _prepare(data: Path | None, config_file: Path | None, role: str) -> Settings:
    settings = config.load(data, config_file)
    telemetry.configure(settings.log, role)
    prepare_directories(settings)
    return settings
