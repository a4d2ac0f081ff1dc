"""A whole signalkeep for tests: `signalkeep run` as real processes, a private data directory, free ports.

What a test sees is what a user sees: command line, ports, PostgreSQL. Processes are ended by their own handle.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any, Self

import psutil

from tests.servers import free_port, private_directory, processes_below, remove_directory, wait_until

READY_S = 60.0
COMMAND_S = 120.0


class Core:
    """One data directory. `start` and `stop` may alternate; `close` removes everything."""

    def __init__(self, **settings: str) -> None:
        self.directory = private_directory()
        self.data = self.directory / "data"
        self.ports = {"teltonika": free_port(), "json": free_port()}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")},
            "SIGNALKEEP_DATA": str(self.data),
            "SIGNALKEEP_GATEWAY__HOST": "127.0.0.1",
            "SIGNALKEEP_GATEWAY__PORTS": json.dumps(self.ports),
            "SIGNALKEEP_MONITOR__PORT": "0",
            "SIGNALKEEP_JOURNAL__SEGMENT_BYTES": str(1 << 20),
            "SIGNALKEEP_JOURNAL__DISK_FREE_BYTES": "0",
            "SIGNALKEEP_JOURNAL__ALLOW_UNSAFE": "true",  # where /tmp is memory
            **{f"SIGNALKEEP_{name.upper()}": value for name, value in settings.items()},
        }
        self.log = self.directory / "run.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *options: str) -> None:
        """`signalkeep run`, until it says that it runs."""
        before = self.log.stat().st_size if self.log.exists() else 0
        self.launch(*options)
        self.wait_until_it_runs(before)

    def launch(self, *options: str) -> None:
        """`signalkeep run`; what becomes of it is not waited for."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "signalkeep", "run", *options], env=self.environment, stdout=log, stderr=log
            )

    def wait_until_it_runs(self, log_start: int = 0) -> None:
        """Until it says so in the log, from there on."""
        process = self.process

        def ready() -> bool:
            assert process.poll() is None, f"run ended with {process.returncode}:\n{self.log_text()[-3000:]}"
            return " runs" in self.log_text(log_start)

        wait_until(ready, READY_S, what="signalkeep runs")

    def stop(self) -> int:
        """SIGTERM, as a service manager would; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(COMMAND_S)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """SIGKILL of the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(COMMAND_S)

    def close(self) -> None:
        """End every process, whatever state the test left it in, and remove the directory."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        wait_until(lambda: not self._role_processes(), 60, what="roles end")
        remove_directory(self.directory)

    def log_text(self, start: int = 0) -> str:
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[start:].decode(errors="replace")

    def run(self, *arguments: str, input_text: str | None = None, expect: int | None = 0) -> str:
        """A command of signalkeep; its standard output. Asserts the exit code unless `expect` is None."""
        return self._command(arguments, input_text, expect).stdout

    def output(self, *arguments: str, expect: int | None = None) -> str:
        """The same with all that it printed, standard error last."""
        done = self._command(arguments, None, expect)
        return done.stdout + done.stderr

    def _command(
        self, arguments: tuple[str, ...], input_text: str | None, expect: int | None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "signalkeep", *arguments],
            env=self.environment,
            input=input_text,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if expect is not None:
            assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, expect: int | None = 0) -> Any:
        """A command with --json; what it printed."""
        return json.loads(self.run(*arguments, "--json", expect=expect))

    def sql(self, query: str) -> list[list[str]]:
        """Plain SQL through `signalkeep psql`: rows of text."""
        text = self.run("psql", "-X", "-A", "-t", "-F", "\t", "-c", query)
        return [line.split("\t") for line in text.splitlines()]

    def role(self, name: str) -> int:
        """The pid of a role."""
        pids = [int(role["pid"]) for role in self.json("status", expect=None)["roles"] if role["role"] == name]
        assert pids, f"no {name} runs"
        return pids[0]

    def kill_role(self, name: str) -> int:
        """SIGKILL of a role's process; its pid."""
        pid = self.role(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_role(self, name: str, *, not_pid: int = 0) -> int:
        """Until a role runs again as another process."""
        found = 0

        def runs() -> bool:
            nonlocal found
            roles = self.json("status", expect=None)["roles"]
            pids = [int(role["pid"]) for role in roles if role["role"] == name and role["pid"] != not_pid]
            found = pids[0] if pids else 0
            return bool(pids)

        wait_until(runs, 60, what=f"{name} runs again")
        return found

    def wait_for_rows(self, query: str, count: int) -> None:
        """Until the query's single number is at least `count`."""
        wait_until(lambda: int(self.sql(query)[0][0]) >= count, 60, what=f"{query} reaches {count}")

    def talk(self, protocol: str, data: bytes, *, answer_bytes: int, close_side: bool = False) -> bytes:
        """Send bytes on a fresh connection and read that many bytes of answer."""
        with socket.create_connection(("127.0.0.1", self.ports[protocol]), timeout=20) as connection:
            connection.sendall(data)
            if close_side:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) < answer_bytes:
                piece = connection.recv(4096)
                if not piece:
                    break
                answer += piece
            return answer

    def _role_processes(self) -> list[psutil.Process]:
        """Whatever still works for this data directory."""
        found = processes_below(self.directory)
        for process in psutil.process_iter(["cmdline"]):
            if str(self.data) in (process.info["cmdline"] or []) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found
