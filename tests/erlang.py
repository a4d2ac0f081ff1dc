"""What RabbitMQ and its tests need of the machine: the installed programs, ports, names, and a look at processes.

Nothing here knows a node; `tests/rabbit.py` does. An `Epmd` is a process of ours and listens on the loopback only.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from signalkeep.errors import EnvironmentFault
from tests.servers import wait_until

SCRIPTS: Final = Path("/usr/lib/rabbitmq/bin")  # those of /usr/sbin change to another account first
INSTALL: Final = "apt-get install --no-install-recommends rabbitmq-server"
LOOPBACK: Final = "127.0.0.1"
# Outside of the range from which the kernel takes ports for outgoing connections: a node that is down for a while
# finds its ports free when it comes back.
PORTS: Final = range(15_000, 32_000)
GIVEN: Final[set[int]] = set()


def find_rabbitmq() -> None:
    """EnvironmentFault, with the command to install it, unless RabbitMQ and the programs of Erlang are here."""
    missing = [name for name in ("erl", "erl_call", "epmd") if shutil.which(name) is None]
    if not (SCRIPTS / "rabbitmq-server").exists():
        missing.insert(0, "rabbitmq-server")
    if missing:
        raise EnvironmentFault(f"no {', '.join(missing)} on this machine: {INSTALL}", hint=INSTALL)


def program(name: str) -> str:
    """The absolute path of an installed program."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: {INSTALL}"
    return path


def steady_port() -> int:
    """A port on the loopback that is free now, and that no outgoing connection will take; another one each time."""
    for port in random.sample(PORTS, 100):
        if port in GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        GIVEN.add(port)
        return port
    raise AssertionError("no free port found")


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def binary(text: str) -> str:
    """The text as an Erlang binary. Numbers need no escaping, whatever the text holds."""
    return f"<<{','.join(map(str, text.encode()))}>>"


def atom(text: str) -> str:
    """The text as an Erlang atom; for names that we made ourselves."""
    assert not set("'\\") & set(text), text
    return f"'{text}'"


class Epmd:
    """The directory in which the nodes of one cluster find each other's ports; a process of ours in the foreground."""

    def __init__(self) -> None:
        self.port = steady_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            [program("epmd"), "-port", str(self.port), "-address", LOOPBACK],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: answers(self.port), what="epmd listens")

    def close(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def thread_state(stat: Path) -> str:
    """The letter that the kernel gives for a thread; X for one that is gone."""
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def processes_of(directory: Path) -> list[psutil.Process]:
    """The living processes that have this directory as their home: a VM, its helpers, and commands to it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            home = process.environ().get("HOME")
            if home == str(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
