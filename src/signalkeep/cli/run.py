"""`run`: the whole core on one machine, with a banner that says where everything is and what to try first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from signalkeep import __version__, config, telemetry
from signalkeep.cli.common import ConfigOption, DataOption, err, run_async
from signalkeep.clock import SystemClock
from signalkeep.config import Settings
from signalkeep.roles import prepare_directories, refuse_unsafe_disk, stop_on_signals
from signalkeep.rulebook import rulebook_of
from signalkeep.store.access import password_file, reader_address
from signalkeep.supervisor import Role, Supervisor
from signalkeep.systemd import ServiceManager

TALK_EVENT = (
    '{"device_number": "86915304265485", "event_code": "4002", "message_date": "2020/02/05 12:18:28", '
    '"latitude": "37.9815116", "longitude": "23.7315200"}'
)
DEMO_DEVICES = 20

log = telemetry.get_logger()


def run(
    data: DataOption = None,
    config_file: ConfigOption = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="on a data directory of its own, with a simulated fleet driving in it"),
    ] = False,
) -> None:
    """Start the whole core: gateway, ingest, organizer, monitor; a relay if there is a broker, PostgreSQL if no DSN."""
    from signalkeep.gateway.listen import probe_ports
    from signalkeep.gateway.tls import TlsSource
    from signalkeep.monitor.server import probe_port

    if demo and data is None:
        usual = config.default_data_directory()
        data = usual.with_name(usual.name + "-demo")
    settings = config.load(data, config_file)
    telemetry.configure(settings.log, "supervisor")
    if settings.quality.enabled:
        rulebook_of(settings.quality)  # roles that cannot use it would be started again and again
    if settings.gateway.tls.ports:
        TlsSource(settings.gateway.tls)  # so would a gateway
    prepare_directories(settings)
    refuse_unsafe_disk(settings)
    roles = _roles(settings, config_file, demo=demo)

    manager = ServiceManager(os.environ)

    def probe() -> None:
        probe_ports(settings.gateway.host, settings.gateway.ports, settings.gateway.served_udp())
        if settings.monitor.enabled:
            probe_port(settings.monitor.host, settings.monitor.port)

    def ready(waiting: list[str]) -> None:
        manager.tell("READY=1", f"STATUS=not ready yet: {', '.join(waiting)}" if waiting else "STATUS=runs")
        if telemetry.only_json():
            log.info(f"signalkeep {__version__} runs", pid=os.getpid(), data=str(settings.data), waiting=waiting)
        else:
            err.print(banner(settings, waiting, demo=demo))

    async def body() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, None)
        supervisor = Supervisor(
            settings, roles, clock=SystemClock(), stop=stop, probe_ports=probe, service_manager=manager
        )
        first = " (the first start takes a few seconds longer)" if not any(settings.journal_root.iterdir()) else ""
        _say(f"signalkeep {__version__} is starting on {settings.data}{first} ...")
        await supervisor.run(on_ready=ready)
        _say("signalkeep has stopped. Everything acknowledged is on disk.")

    run_async(body())


def _say(text: str) -> None:
    if telemetry.only_json():
        log.info(text, pid=os.getpid(), version=__version__)
    else:
        err.print(text)


def banner(settings: Settings, waiting: list[str], *, demo: bool) -> str:
    """What a person wants to know first; plain lines, so that commands can be copied whole."""
    option = config.data_option(settings)
    served = [f"{name} {port}" for name, port in settings.gateway.ports.items()]
    served += [f"{name} {port}/udp" for name, port in settings.gateway.served_udp().items()]
    ports = ", ".join(served)
    lines = [
        f"[bold green]signalkeep {__version__} runs[/bold green]",
        f"  devices    {settings.gateway.host}: {ports}",
        f"  data       {settings.data}",
        f"  database   signalkeep psql{option}",
        f"  look       signalkeep status{option}",
        f"             signalkeep signals tail{option}",
    ]
    if settings.database.listen:
        file = password_file(settings.data, settings.database)
        lines.append(f"  reading    {reader_address(settings.database)} (password in {file})")
    if settings.monitor.enabled and settings.monitor.port:
        place = f"[{settings.monitor.host}]" if ":" in settings.monitor.host else settings.monitor.host
        lines.append(f"  monitor    http://{place}:{settings.monitor.port}/metrics, /readyz, /livez")
    if "json" in settings.gateway.ports:
        lines += [
            f"  try        echo '{TALK_EVENT}' | nc -q 1 127.0.0.1 {settings.gateway.ports['json']}",
            f"             signalkeep devices add 86915304265485{option}",
        ]
    if demo:
        lines.append(f"  demo       {DEMO_DEVICES} simulated units are driving")
    lines.append("  stop       Ctrl-C")
    if waiting:
        lines.append(f"[yellow]not ready yet: {', '.join(waiting)}; the lines above say why[/yellow]")
    return "\n".join(lines)


def _roles(settings: Settings, config_file: Path | None, *, demo: bool) -> list[Role]:
    """Children in the order of starting; the monitor is first there and last to go, to tell how the others do."""
    options = ["--data", str(settings.data)]
    if config_file is not None:
        options += ["--config", str(config_file)]
    roles = [Role("monitor", 0, ["monitor", *options, "--instance", "0"])] if settings.monitor.enabled else []
    roles += [
        Role("ingest", number, ["ingest", *options, "--instance", str(number)])
        for number in range(settings.ingest.processes)
    ]
    if settings.organizer.enabled and settings.organizer.runner == "asyncio":
        roles.append(Role("organizer", 0, ["organizer", *options, "--instance", "0"]))
    if settings.broker.enabled:
        roles.append(Role("relay", 0, ["relay", *options, "--instance", "0"]))
    roles += [
        Role("gateway", number, ["gateway", *options, "--instance", str(number), "--share-ports"])
        for number in range(settings.gateway.processes)
    ]
    if demo:
        port = settings.gateway.ports.get("teltonika", 5027)
        command = ["fleet", *options, "--devices", str(DEMO_DEVICES), "--port", str(port), "--instance", "0"]
        roles.append(Role("fleet", 0, command))
    return roles
