"""A fleet spread over several machines, as processes without a supervisor: gateways with their relays, workers.

Each machine has a data directory of its own; PostgreSQL and RabbitMQ are between them. Who is killed here is started
again by the drill, as a service manager would.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.core import COMMAND_S, Core
from tests.faults.broker_core import NO_PLUGIN, leftovers, remember_queues
from tests.faults.drill import Result
from tests.faults.fleet import FIRST_NUMBERS, NUMBERS_APART, Load, fleet_of
from tests.faults.judgement import judge, recovery_s
from tests.rabbit import RabbitNode
from tests.servers import PostgresServer, run_sync

GATEWAY_ROLES: Final = ("gateway", "relay")
WORKER_ROLES: Final = ("ingest",)


class Machine(Core):
    """One data directory, and a process for each of its roles."""

    def __init__(self, dsn: str, url: str, roles: Sequence[str]) -> None:
        super().__init__(
            database__dsn=dsn, broker__url=url, broker__management_url=NO_PLUGIN, unknown_devices="register"
        )
        self._roles = roles
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *options: str) -> None:
        """All of its roles that do not run; what becomes of them is not waited for."""
        for role in self._roles:
            if role not in self._running:
                with self.log.open("ab") as log:
                    command = [sys.executable, "-m", "signalkeep", role, *options]
                    self._running[role] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def kill_process(self, role: str) -> None:
        """SIGKILL, whatever it is doing."""
        process = self._running.pop(role)
        assert process.poll() is None, f"{role} had ended by itself:\n{self.log_text()[-3000:]}"
        process.kill()
        process.wait(COMMAND_S)

    @contextmanager
    def frozen(self, role: str) -> Iterator[None]:
        """SIGSTOP, and SIGCONT in the end: it keeps its connections and does nothing."""
        process = self._running[role]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ask all to end, then remove everything. AssertionError for who does not."""
        for process in self._running.values():
            process.terminate()
        late = []
        for role, process in self._running.items():
            try:
                process.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(COMMAND_S)
                late.append(role)
        self._running.clear()
        super().close()
        assert not late, f"{late} did not end when told to"


class Spread:
    """`gateways` and `workers` run when it is made by `spread_over`. `node` answers questions about queues."""

    def __init__(self, stack: ExitStack, dsn: str, nodes: Sequence[RabbitNode]) -> None:
        self.dsn, self.nodes, self.node = dsn, nodes, nodes[0]
        self._stack = stack
        self.gateways: list[Machine] = []
        self.workers: list[Machine] = []

    def add_gateway(self, node: int = 0) -> Machine:
        """A machine that takes devices and knows that node."""
        self.gateways.append(self._stack.enter_context(Machine(self.dsn, self.nodes[node].url, GATEWAY_ROLES)))
        return self.gateways[-1]

    def add_worker(self, node: int = 0) -> Machine:
        """A machine that writes what comes over that node."""
        self.workers.append(self._stack.enter_context(Machine(self.dsn, self.nodes[node].url, WORKER_ROLES)))
        return self.workers[-1]

    @contextmanager
    def load(self) -> Iterator[Load]:
        """A fleet of each protocol against each gateway."""
        fleets = [
            fleet_of(gateway, protocol, first_number + number * NUMBERS_APART)
            for number, gateway in enumerate(self.gateways)
            for protocol, first_number in FIRST_NUMBERS.items()
        ]
        driving = Load(fleets, self.gateways[0].directory / "load.jsonl")
        try:
            driving.wait_for_progress()
            for node in self.nodes:
                remember_queues(node)
            yield driving
        finally:
            driving.kill()

    def end(self, driving: Load, result: Result, *, over_s: float) -> None:
        """The trouble is over since then: every gateway's backlog drains, and the judge judges."""
        result.drain_s = max(recovery_s(gateway.ports["json"], self.dsn, over_s) for gateway in self.gateways)
        driving.wait_for_progress(20)
        unconfirmed = driving.end()
        for gateway in self.gateways[1:]:  # an audit waits for the journals of its own machine
            gateway.json("audit", "--oracle", str(driving.oracle), expect=None)
        result.take(judge(self.gateways[0], self.dsn, driving.oracle, unconfirmed=unconfirmed))
        result.broken += leftovers(self.node, self.dsn)


@contextmanager
def spread_over(nodes: Sequence[RabbitNode], *, gateways: Sequence[int], workers: Sequence[int]) -> Iterator[Spread]:
    """Machines that know the nodes with these numbers, and a PostgreSQL; the nodes run already."""
    with ExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.close)
        run_sync(server.start())
        spread = Spread(stack, run_sync(server.create_database()), nodes)
        for node in gateways:
            spread.add_gateway(node)
        for node in workers:
            spread.add_worker(node)
        yield spread
