"""The one place that starts RabbitMQ for tests: single nodes here, clusters of them in `tests/rabbit_cluster.py`.

A `RabbitNode` is the installed server in a private directory: own name, ports, cookie, data and logs; it reads no
configuration of the system and listens on the loopback only. Its VM is our own child process, so that it can be
stopped, killed and paused by its handle. Names of nodes are looked up at an `Epmd` of ours, never at the system's.

Orders go to a node as Erlang expressions over `erl_call`, which takes milliseconds; `rabbitmqctl` starts a VM for
each call. Nothing here sleeps for a fixed time: conditions are polled up to a deadline.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil

from tests.erlang import (
    LOOPBACK,
    SCRIPTS,
    Epmd,
    binary,
    find_rabbitmq,
    processes_of,
    program,
    steady_port,
    thread_state,
)
from tests.servers import private_directory, wait_until
from tests.simulate.certificates import server_context

ACTING: Final = '<<"tests">>'  # who is said to have given an order
READY_S: Final = 60.0
MEMORY_BYTES_MAX: Final = 1 << 30
# Of the plugins that the package brings, those that a node here may need; libraries have other names.
PLUGINS: Final = frozenset(
    {"rabbitmq_prelaunch", "rabbitmq_management", "rabbitmq_management_agent", "rabbitmq_web_dispatch"}
)
# A tick writes the counts of quorum queues to where `queues` reads them; every five seconds unless told otherwise.
ADVANCED: Final = "[{rabbit, [{quorum_tick_interval, 200}]}].\n"


class CallFailed(Exception):
    """A node could not be reached, or an expression or command failed on it."""


@dataclass(frozen=True)
class Queue:
    """A queue as `rabbitmqctl list_queues` would show it."""

    name: str
    type: str
    messages: int
    ready: int
    unacknowledged: int
    consumers: int


class RabbitNode:
    """A throw-away node, which can be stopped, killed, paused, wiped and started again on the same ports."""

    def __init__(
        self, *, management: bool = False, tls: bool = False, epmd: Epmd | None = None, cookie: str | None = None
    ) -> None:
        self.directory = private_directory()
        self.name = f"sk-{secrets.token_hex(4)}@localhost"
        self.config: list[str] = []  # further lines of rabbitmq.conf, read at the next start
        self.port, self._distribution_port = steady_port(), steady_port()
        self._management_port = steady_port() if management else None
        self._tls_port = steady_port() if tls else None
        self._epmd = epmd or Epmd()
        self._owns_epmd = epmd is None
        self._process: subprocess.Popen[bytes] | None = None
        cookie_file = self.directory / ".erlang.cookie"
        cookie_file.write_text(cookie or secrets.token_hex(16), encoding="utf-8")
        cookie_file.chmod(0o600)

    @property
    def url(self) -> str:
        """Of the first virtual host, as its administrator; add the quoted name of another to the end."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def amqps_url(self) -> str:
        """The same over TLS; trust `ca_file`."""
        assert self._tls_port is not None, "started without tls=True"
        return f"amqps://guest:guest@{LOOPBACK}:{self._tls_port}/"

    @property
    def ca_file(self) -> Path:
        """The certificate to trust."""
        assert self._tls_port is not None, "started without tls=True"
        return self.directory / "certificate.pem"

    @property
    def management_url(self) -> str:
        """Of the management plugin, without credentials: they are guest and guest."""
        assert self._management_port is not None, "started without management=True"
        return f"http://{LOOPBACK}:{self._management_port}/"

    def vhost_url(self, vhost: str, *, user: str = "guest", password: str = "guest") -> str:
        """Of a virtual host, for a user."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{who}@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    # Its life.

    @property
    def pid(self) -> int | None:
        """Of the Erlang VM, while there is one."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it serves clients."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting. In a cluster, one node may need others before it is ready."""
        find_rabbitmq()
        assert self.pid is None, "it runs"
        self._epmd.start()
        if not (self.directory / "server").exists():
            self._link_server()
        if self._tls_port is not None and not self.ca_file.exists():
            server_context(self.directory)
        self._write_configuration()
        with (self.directory / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [SCRIPTS / "rabbitmq-server"],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until a launched node serves clients; AssertionError with its first errors if it ends instead."""

        def ready() -> bool:
            assert self.pid is not None, f"{self.name} did not start:\n{self.first_errors()}"
            return self.is_ready()

        wait_until(ready, READY_S, what=f"{self.name} is ready")

    def is_ready(self) -> bool:
        """Whether the broker of this node works: not while it starts, nor while it waits for a majority."""
        try:
            return bool(self.eval("rabbit_boot_state:get() =:= ready andalso rabbit:is_running()"))
        except CallFailed:
            return False

    def stop(self) -> None:
        """End it in good order."""
        if self.pid is not None:
            self.resume()
            self._signal(signal.SIGTERM)
            self._see_end()

    def kill(self) -> None:
        """kill -9 of the VM, and of the little helpers that it started."""
        self._signal(signal.SIGKILL)
        self._see_end()

    def pause(self) -> None:
        """Freeze it: its connections stay, and nothing on them is answered."""
        self._signal(signal.SIGSTOP)
        # One of its threads must take the signal before the others stop too; on a busy machine that may take a while.
        states = list(Path(f"/proc/{self.pid}/task").glob("*/stat"))
        wait_until(lambda: all(thread_state(path) in "TX" for path in states), what=f"{self.name} is frozen")

    def resume(self) -> None:
        """Let a frozen node go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete what a node that is down has stored: queues, messages, users and virtual hosts."""
        assert self.pid is None, "it runs"
        shutil.rmtree(self.directory / "data")

    def close(self) -> None:
        """End it and remove everything, each whatever becomes of the others."""
        with ExitStack() as last:
            last.callback(shutil.rmtree, self.directory)
            if self._owns_epmd:
                last.callback(self._epmd.close)
            if self._process is not None:
                self._process.kill()
                self._see_end()

    def log(self) -> str:
        """What it wrote to its logs and to its console."""
        files = [self.directory / "console.log", *sorted((self.directory / "log").glob("*.log"))]
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files if path.exists())

    def first_errors(self) -> str:
        """The log from its first error on: what a VM says last only follows from that."""
        return self.log().partition("[error]")[2][:3000] or "no error is in its log"

    # Orders.

    def eval(self, expression: str, *, timeout_s: float = 15.0) -> Any:
        """The value of an Erlang expression on the node, by way of JSON; atoms and binaries become text."""
        code = f"io:put_chars(rabbit_json:encode({expression}, [uescape])), ok.\n"
        command = [program("erl_call"), "-sname", self.name, "-R", "-timeout", str(math.ceil(timeout_s))]
        try:
            done = subprocess.run(
                [*command, "-fetch_stdout", "-e"],
                input=code,
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=timeout_s + 5,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise CallFailed(f"{expression}: {self.name} did not answer") from expired
        value, end, _ = done.stdout.rpartition("{ok, ok}")
        if not end:
            raise CallFailed(f"{expression}: {done.stdout}{done.stderr}")
        return json.loads(value)

    def order(self, expression: str, *, timeout_s: float = 15.0) -> None:
        """Evaluate an expression that must return ok."""
        self.eval(f"begin ok = {expression} end", timeout_s=timeout_s)

    def ctl(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """What `rabbitmqctl` prints; for what `eval` does not make easier."""
        command = [str(SCRIPTS / "rabbitmqctl"), "--node", self.name, "--quiet", *arguments]
        done = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise CallFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def add_vhost(self, name: str) -> None:
        """A virtual host in which guest may do everything."""
        self.order(f"rabbit_vhost:add({binary(name)}, {ACTING})")
        self.permit("guest", name)

    def delete_vhost(self, name: str) -> None:
        """Delete it with its queues; its connections are closed."""
        self.order(f"rabbit_vhost:delete({binary(name)}, {ACTING})")

    def add_user(
        self, name: str, password: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """A user who may do in a virtual host what these patterns say."""
        self.order(f"rabbit_auth_backend_internal:add_user({binary(name)}, {binary(password)}, {ACTING})")
        self.permit(name, vhost, configure, write, read)

    def permit(self, user: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """Change what a user may do in a virtual host. Open channels keep what they looked up for a while."""
        arguments = ", ".join(map(binary, (user, vhost, configure, write, read)))
        self.order(f"rabbit_auth_backend_internal:set_permissions({arguments}, {ACTING})")

    def set_policy(
        self, vhost: str, name: str, pattern: str, definition: dict[str, Any], *, apply_to: str = "queues"
    ) -> None:
        """Set or replace a policy; queues that match take it at once."""
        what = ", ".join(map(binary, (vhost, name, pattern, json.dumps(definition))))
        self.order(f"rabbit_policy:parse_set({what}, 0, {binary(apply_to)}, {ACTING})")

    def remember_queues(self) -> None:
        """Write to the disk which quorum queues there are.

        Otherwise this happens up to a second after a queue was declared, and RabbitMQ 3.10 forgets a queue that is
        younger than this when it is killed: with its messages, confirmed or not. It is back without a leader, and of
        no use until it is deleted.
        """
        self.eval("[dets:sync(Table) || Table <- dets:all()]")

    def memory_alarm(self, on: bool) -> None:
        """Make the node believe that its memory is full, so that it blocks who publishes; or let it see again."""
        limit = "1.0e-7" if on else f"{{absolute, {MEMORY_BYTES_MAX}}}"
        self.order(f"vm_memory_monitor:set_vm_memory_high_watermark({limit})")
        present = "lists:member({{resource_limit, memory, node()}, []}, rabbit_alarm:get_alarms())"
        wait_until(lambda: self.eval(present) is on, what=f"the memory alarm of {self.name} is {on}")

    def queues(self, vhost: str = "/") -> dict[str, Queue]:
        """The queues of a virtual host that can be reached, by name. Counts of quorum queues are up to 0.2 s old."""
        fields = ("type", "messages", "messages_ready", "messages_unacknowledged", "consumers")
        values = ", ".join(f"proplists:get_value({field}, I)" for field in fields)
        # Only the node that leads a queue knows its counts.
        told = f"rpc:call(amqqueue:qnode(Q), rabbit_amqqueue, info, [Q, [name, {', '.join(fields)}]])"
        listed = f"[I || Q <- rabbit_amqqueue:list({binary(vhost)}), I <- [{told}], is_list(I)]"
        rows = self.eval(f"[[element(4, proplists:get_value(name, I)), {values}] || I <- {listed}]")
        # A queue that is just being started has an empty text for a count.
        return {name: Queue(name, kind, *(int(count or 0) for count in counts)) for name, kind, *counts in rows}

    # Below the surface.

    def _signal(self, number: signal.Signals) -> None:
        assert self.pid is not None, "it is not running"
        assert self._process is not None
        self._process.send_signal(number)

    def _see_end(self) -> None:
        """Wait for the end of the VM. What it started ends by itself after it, a little later; nothing may stay."""
        assert self._process is not None
        self._process.wait(READY_S)
        self._process = None

        def nothing_left() -> bool:
            left = processes_of(self.directory)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return not left

        wait_until(nothing_left, what=f"the processes of {self.name} end")

    def _environment(self) -> dict[str, str]:
        """All that the node and the commands to it may know: nothing of ours gets into its logs."""
        here = self.directory
        on_loopback = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
        port = self._distribution_port
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(here),  # of the cookie
            "ERL_CRASH_DUMP_SECONDS": "0",  # none: it takes seconds
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._epmd.port),
            "RABBITMQ_SCRIPTS_DIR": str(here / "server" / "sbin"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(port),
            "RABBITMQ_CONF_ENV_FILE": str(here / "environment"),  # there is none, so the system's is not read
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(here / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            # As under systemd: the script becomes the VM, so that our handle is the VM's own.
            "RUNNING_UNDER_SYSTEMD": "true",
            # With its name from the beginning, the VM does not start another one only to look for an epmd.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 +sbwt none {on_loopback} -sname {self.name}"
            f" -kernel inet_dist_listen_min {port} -kernel inet_dist_listen_max {port}",
            "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 +sbwt none {on_loopback}",
        }

    def _link_server(self) -> None:
        """The installed server, without most of its plugins.

        The VM looks for each of a thousand modules in the folder of each plugin, which takes longer than all else.
        """
        (installed,) = SCRIPTS.parent.glob("lib/rabbitmq_server-*")
        plugins = self.directory / "server" / "plugins"
        plugins.mkdir(parents=True)
        for name in ("sbin", "escript"):
            (plugins.parent / name).symlink_to(installed / name)
        for plugin in (installed / "plugins").iterdir():
            name = plugin.name.partition("-")[0]
            if not name.startswith("rabbitmq_") or name in PLUGINS:
                (plugins / plugin.name).symlink_to(plugin)

    def _write_configuration(self) -> None:
        lines = [
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}",
            "disk_free_limit.absolute = 1MB",
            f"vm_memory_high_watermark.absolute = {MEMORY_BYTES_MAX}",
            "raft.wal_max_size_bytes = 8388608",
            "log.console = false",
            "log.file.level = info",
        ]
        if self._management_port is not None:
            lines += [f"management.tcp.ip = {LOOPBACK}", f"management.tcp.port = {self._management_port}"]
        if self._tls_port is not None:
            lines += [
                f"listeners.ssl.1 = {LOOPBACK}:{self._tls_port}",
                f"ssl_options.cacertfile = {self.directory}/certificate.pem",
                f"ssl_options.certfile = {self.directory}/certificate.pem",
                f"ssl_options.keyfile = {self.directory}/key.pem",
                "ssl_options.verify = verify_none",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        plugins = "rabbitmq_management" if self._management_port is not None else ""
        for name, text in (
            ("rabbitmq.conf", "\n".join([*lines, *self.config]) + "\n"),
            ("advanced.config", ADVANCED),
            ("enabled_plugins", f"[{plugins}].\n"),
        ):
            (self.directory / name).write_text(text, encoding="utf-8")
