"""A RabbitMQ node for measurements: the installed server with its own settings, in a directory of its own.

It listens on the loopback alone, under a name and ports that nobody else has, and knows nothing of a broker that the
system may run. What it is measured with is what a fresh installation has: nothing is tuned here. Its memory, its log on
the disk and its processor time are those of one process, the Erlang VM. All ends when the `with` block is left.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.core import free_port

SERVER: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # those on the path change to another account first
INSTALL: Final = "apt-get install --no-install-recommends rabbitmq-server"
LOOPBACK: Final = "127.0.0.1"
READY_S: Final = 90.0
STOP_S: Final = 10.0


def missing() -> str:
    """What this machine lacks to start a node, with the command that installs it; "" if there is nothing."""
    names = [name for name in ("erl", "epmd") if shutil.which(name) is None]
    if not SERVER.exists():
        names.insert(0, "rabbitmq-server")
    return f"no {', '.join(names)} on this machine: {INSTALL}" if names else ""


class RabbitNode:
    """A node that lives as long as its `with` block."""

    def __init__(self, place: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="sk-bench-mq-", dir=place))
        self.port, self._names_port, self._distribution_port = free_port(), free_port(), free_port()
        self._name = f"sk-bench-{secrets.token_hex(4)}@localhost"
        self._names: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def pid(self) -> int:
        """Of the Erlang VM."""
        assert self._server is not None
        return self._server.pid

    def __enter__(self) -> RabbitNode:
        cookie = self._directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16), encoding="utf-8")
        cookie.chmod(0o600)
        settings = f"listeners.tcp.1 = {LOOPBACK}:{self.port}\nlog.console = false\n"
        (self._directory / "rabbitmq.conf").write_text(settings, encoding="utf-8")
        (self._directory / "enabled_plugins").write_text("[].\n", encoding="utf-8")
        try:
            self._names = self._start([shutil.which("epmd") or "epmd", "-port", str(self._names_port)])
            self._wait(self._names, self._names_port)
            self._server = self._start([str(SERVER)])
            self._wait(self._server, self.port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """What it stored is of no use to anybody, so it need not end in good order."""
        for process in (self._server, self._names):
            if process is not None:
                process.kill()
                process.wait(STOP_S)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._directory / "console.log").open("ab") as console:
            return subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Until it takes connections."""
        end = time.monotonic() + READY_S
        while True:
            with closing(socket.socket()) as probe:
                probe.settimeout(1)
                if probe.connect_ex((LOOPBACK, port)) == 0:
                    return
            if process.poll() is not None or time.monotonic() > end:
                console = (self._directory / "console.log").read_text(encoding="utf-8", errors="replace")
                raise SystemExit(f"RabbitMQ did not start:\n{console[-3000:]}")
            time.sleep(0.1)

    def _environment(self) -> dict[str, str]:
        """All that it may know: files of the system, as far as the server looks for them, are replaced by ours."""
        here, port = self._directory, self._distribution_port
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(here),  # of the cookie
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_DIST_PORT": str(port),
            "RABBITMQ_CONF_ENV_FILE": str(here / "environment"),  # there is none
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(here / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the VM: our handle is the VM's own
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-start_epmd false -sname {self._name}"
            " -kernel inet_dist_use_interface {127,0,0,1}"
            f" -kernel inet_dist_listen_min {port} -kernel inet_dist_listen_max {port}",
        }
