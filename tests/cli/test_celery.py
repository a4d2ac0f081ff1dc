"""Celery runs the organizer's jobs: each is noted, none overlaps, none is lost with its worker, and none piles up."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from signalkeep import config
from signalkeep.cli.celery_app import QUEUE, make_app
from signalkeep.cli.run import _roles
from signalkeep.clock import SystemClock
from signalkeep.errors import SettingsError
from tests.builders import ask
from tests.rabbit import Queue, RabbitNode
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.servers

OURS = "signalkeep.cli.celery_app"
TESTS = "tests.cli.celery_jobs"
END_S = 60.0


@pytest.fixture(scope="module")
def node(rabbitmq: None) -> Iterator[RabbitNode]:
    """A broker for the tests of this file."""
    started = RabbitNode(tls=True)
    try:
        started.start()
        yield started
    finally:
        started.close()


class Site:
    """A database, a virtual host, and processes of Celery that work for them."""

    def __init__(self, directory: Path, dsn: str, node: RabbitNode) -> None:
        self.dsn = dsn
        self.node = node
        self.vhost = f"test-{secrets.token_hex(4)}"
        node.add_vhost(self.vhost)
        # A user who may do no more than the hint of the broker's errors says.
        node.add_user(self.vhost, "correct-horse", self.vhost, *[r"signalkeep\..*"] * 3)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SIGNALKEEP_")},
            "SIGNALKEEP_DATA": str(directory),
            "SIGNALKEEP_DATABASE__DSN": dsn,
            "SIGNALKEEP_BROKER__URL": node.vhost_url(self.vhost, user=self.vhost, password="correct-horse"),
            "SIGNALKEEP_ORGANIZER__RUNNER": "celery",
            "SIGNALKEEP_LOG__FORMAT": "json",
            "SIGNALKEEP_QUALITY__SWEEP_EVERY_S": "1",
        }
        self.errors = directory / "errors"
        self.output = directory / "output"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """`celery -A module ...`, as a person would start it."""
        command = [sys.executable, "-m", "celery", "-A", module, *arguments]
        with self.errors.open("ab") as errors, self.output.open("ab") as output:
            process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )
        self.processes.append(process)
        return process

    def worker(self, module: str = TESTS, name: str = "one") -> subprocess.Popen[bytes]:
        return self.start(module, "worker", "--concurrency", "1", "--hostname", f"{name}@test")

    def send(self, job: str, **options: Any) -> None:
        """Tell the workers to run a job, as beat does."""
        app = make_app(config.load(environ=self.environment), [], SystemClock())
        with app.connection_for_write() as connection:
            app.send_task(f"signalkeep.{job}", connection=connection, **options)

    def begun(self, job: str) -> list[tuple[bool, int]]:
        """The runs of a test's job that have begun: whether each was alone, and who did it for PostgreSQL."""
        if not ask(self.dsn, "SELECT to_regclass('test_run') IS NOT NULL AS there")[0]["there"]:
            return []
        return [(row["alone"], row["pid"]) for row in ask(self.dsn, f"SELECT * FROM test_run WHERE job = '{job}'")]

    def noted(self, job: str) -> dict[str, Any]:
        found = ask(self.dsn, f"SELECT * FROM organizer_job WHERE name = '{job}'")
        return dict(found[0]) if found else {"runs": 0, "ended_at": None}

    def queue(self) -> Queue | None:
        return self.node.queues(self.vhost).get(QUEUE)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        assert process.wait(END_S) == 0

    def close(self) -> None:
        for process in self.processes:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait(END_S)
        self.node.delete_vhost(self.vhost)


@pytest.fixture
def site(tmp_path: Path, dsn: str, node: RabbitNode) -> Iterator[Site]:
    ask(dsn, "CREATE TABLE test_run (job text, alone boolean, pid integer)")
    made = Site(tmp_path, dsn, node)
    yield made
    made.close()


# They run -----------------------------------------------------------------------------------------------------------


def test_every_job_runs_and_is_noted_and_nothing_else_is_made_in_the_broker(site: Site) -> None:
    worker, beat = site.worker(OURS), site.start(OURS, "beat")
    wait_until(lambda: site.noted("quality")["runs"] >= 3 and site.noted("fleet")["runs"] == 1, what="the jobs run")
    noted = site.noted("quality")
    assert (noted["every_s"], noted["failures"]) == (1.0, 0)
    assert noted["ran_by"].partition(":")[2].isdecimal()
    queues = site.node.queues(site.vhost)
    assert {name: queue.type for name, queue in queues.items()} == {QUEUE: "quorum"}
    exchanges = site.node.eval(f'[element(4, element(2, E)) || E <- rabbit_exchange:list(<<"{site.vhost}">>)]')
    assert [name for name in exchanges if name and not name.startswith("amq.")] == [QUEUE]
    site.stop(beat)
    site.stop(worker)
    said = site.errors.read_text()
    assert "correct-horse" not in said + site.output.read_text()


def test_what_goes_wrong_is_a_line_of_json_without_a_password(site: Site) -> None:
    site.environment["SIGNALKEEP_BROKER__URL"] = f"amqp://me:correct-horse@127.0.0.1:{free_port()}/"
    site.worker()
    wait_until(lambda: "Cannot connect to" in site.errors.read_text(), what="the worker says so")
    said = site.errors.read_text()
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["role"] for line in lines} == {"celery"}
    assert "correct-horse" not in said


# Whatever happens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["worker", "its child"])
def test_a_run_that_is_cut_off_is_done_once_more_and_never_twice_at_a_time(site: Site, victim: str) -> None:
    workers = {name: site.worker(name=name) for name in ("one", "other")}
    site.send("waits")
    wait_until(lambda: site.begun("waits"), what="the job begins")
    child = psutil.Process(int(site.noted("waits")["ran_by"].rpartition(":")[2]))
    if victim == "worker":
        (main,) = [process for process in workers.values() if process.pid == child.ppid()]
        main.send_signal(signal.SIGKILL)
        main.wait(END_S)
    else:
        child.kill()
    wait_until(lambda: len(site.begun("waits")) == 2, what="the job begins again")
    site.send("waits")  # while it runs: that is enough
    site.send("quick")  # when this is done, that has been
    if victim == "its child":
        wait_until(lambda: site.noted("quick")["runs"] == 1, what="the other worker works meanwhile")
    ask(site.dsn, "CREATE TABLE test_go ()")
    wait_until(lambda: site.noted("waits")["ended_at"] and site.noted("quick")["runs"] == 1, what="all is done")
    runs = site.begun("waits")
    assert all(alone for alone, _ in runs)
    noted = site.noted("waits")
    assert (noted["result"], noted["failures"]) == ("gone on", 0)
    assert noted["runs"] == len(runs) - 1 == (1 if victim == "its child" else 2)


def test_when_the_broker_is_started_again_workers_and_beat_go_on(site: Site) -> None:
    ask(site.dsn, "CREATE TABLE test_go ()")
    site.worker()
    site.start(TESTS, "beat")
    wait_until(lambda: site.noted("quick")["runs"] >= 1, what="jobs run")
    site.node.remember_queues()
    site.node.kill()
    wait_until(lambda: "Connection to broker lost" in site.errors.read_text(), what="the worker notices")
    site.node.start()
    before = site.noted("quick")["runs"]
    wait_until(lambda: site.noted("quick")["runs"] >= before + 2, what="jobs run again")
    assert all(process.poll() is None for process in site.processes)


def test_tasks_that_nobody_takes_do_not_pile_up(site: Site) -> None:
    """What is due every second is not made up for. What is due every hour is done all the same."""
    beat = site.start(TESTS, "beat")
    wait_until(lambda: (queue := site.queue()) and queue.messages > 4, what="tasks wait")
    site.stop(beat)
    ask(site.dsn, "CREATE TABLE test_go ()")
    site.worker()
    wait_until(
        lambda: (queue := site.queue()) and queue.consumers and not queue.messages, what="nothing waits any more"
    )
    assert site.noted("waits")["runs"] == 1
    assert len(site.begun("quick")) < 3


def test_without_a_database_a_task_waits_until_it_expires(site: Site) -> None:
    site.environment["SIGNALKEEP_DATABASE__DSN"] = f"postgresql://127.0.0.1:{free_port()}/x"
    site.worker()
    wait_until(lambda: (queue := site.queue()) and queue.consumers == 1, what="the worker is ready")
    site.send("quick", expiration=3.0)
    wait_until(lambda: site.errors.read_text().count("jobs wait for the database") >= 2, what="it is tried again")
    wait_until(lambda: (queue := site.queue()) and queue.messages == 0, what="the task has expired")


# Who runs them ------------------------------------------------------------------------------------------------------


def settings_of(**given: str) -> config.Settings:
    return config.load(environ={f"SIGNALKEEP_{name.upper()}": value for name, value in given.items()})


def test_either_the_organizer_or_celery_runs_them() -> None:
    usual = settings_of()
    celery = settings_of(organizer__runner="celery", broker__url="amqp://localhost")
    assert "organizer" in {role.name for role in _roles(usual, None, demo=False)}
    assert "organizer" not in {role.name for role in _roles(celery, None, demo=False)}
    with pytest.raises(SettingsError, match="by `signalkeep organizer`, not by Celery"):
        make_app(usual, [], SystemClock())
    with pytest.raises(SettingsError, match=r"organizer\.runner: .*set broker\.url"):
        settings_of(organizer__runner="celery")


def said_by(*command: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_wrong_calls_are_told_what_to_do(tmp_path: Path) -> None:
    data = {"SIGNALKEEP_DATA": str(tmp_path), "SIGNALKEEP_JOURNAL__ALLOW_UNSAFE": "true"}
    celery = {"SIGNALKEEP_ORGANIZER__RUNNER": "celery", "SIGNALKEEP_BROKER__URL": "amqp://localhost"}
    code, said = said_by("-m", "signalkeep", "organizer", **data, **celery)
    assert (code, "celery -A signalkeep.cli.celery_app worker" in said) == (2, True)
    code, said = said_by("-m", "celery", "-A", OURS, "worker", **data)
    assert (code, 'Set organizer.runner = "celery"' in said, "Traceback" in said) == (2, True, False)
    without = f"import sys; sys.modules['celery'] = None; import {OURS}"
    code, said = said_by("-c", without)
    assert (code, 'pip install "signalkeep[celery]"' in said) == (1, True)


def test_over_tls_the_broker_must_be_the_one_that_is_meant(node: RabbitNode) -> None:
    def reaches(**broker: str) -> bool:
        settings = settings_of(organizer__runner="celery", **{f"broker__{name}": text for name, text in broker.items()})
        with make_app(settings, [], SystemClock()).connection_for_write() as connection:
            try:
                connection.connect()
            except OSError:
                return False
            return True

    assert reaches(url=node.amqps_url, ca_file=str(node.ca_file))
    assert not reaches(url=node.amqps_url)
    assert not reaches(url=node.amqps_url.replace("127.0.0.1", "localhost.localdomain"), ca_file=str(node.ca_file))
