"""The organizer's jobs as tasks of Celery, for those who run Celery anyway. `pip install "signalkeep[celery]"`

    beat     says when: `celery -A signalkeep.cli.celery_app beat`, one of it
    workers  do it: `celery -A signalkeep.cli.celery_app worker`, any number on any machine

It needs `organizer.runner = "celery"`; then the role `organizer` runs nothing. Data and settings are found as by every
command, and logs are ours; only at its start and end Celery says something in its own words. Tasks go through the
broker of `broker.url`, in one quorum queue. What a run does, notes and locks is the runner's: no job overlaps itself,
however many workers there are and however often a task is delivered.

A task is given back until its run has ended, so a worker that dies costs no run. A task that nobody took before the
next one of its job is due expires in the queue: an outage is followed by one run of each job, not by all that it cost.
"""

from __future__ import annotations

import logging
import ssl
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from signalkeep import config, limits, telemetry
from signalkeep.cli.common import exit_code_of, run_async
from signalkeep.clock import Clock, SystemClock
from signalkeep.config import Settings
from signalkeep.errors import CallerError, SettingsError, SignalkeepError
from signalkeep.integrity.runner import Job, Outcome, Runner
from signalkeep.sections import BrokerSettings
from signalkeep.store.postgres import dsn_of
from signalkeep.store.schema import ensure_schema

try:
    from celery import Celery, signals
    from celery.exceptions import Reject
    from celery.worker.consumer import Consumer
except ImportError as error:
    raise CallerError(
        'Celery is not installed: pip install "signalkeep[celery]"', hint="Without it, `signalkeep organizer` works."
    ) from error

QUEUE: Final = "signalkeep.jobs"
_QUEUE_ARGUMENTS: Final = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,  # never: from RabbitMQ 4.0 on, a queue without a limit of its own has one of 20
}
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
_schema_seen: Final[set[bool]] = set()  # of this process

logging.getLogger("celery.app.trace").setLevel(logging.ERROR)  # why a task is given back we say ourselves

log = telemetry.get_logger()


def __getattr__(name: str) -> Celery:
    """`app`, made when it is asked for: whoever only imports this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    try:
        return _app()
    except SignalkeepError as error:
        sys.exit(exit_code_of(error))


@cache
def _app() -> Celery:
    from signalkeep.cli.jobs import jobs_of

    settings = config.load()
    return make_app(settings, jobs_of(settings, SystemClock()), SystemClock())


def make_app(settings: Settings, jobs: Sequence[Job], clock: Clock) -> Celery:
    """An app with a task for each job. Raises SettingsError if jobs are not to be run by Celery."""
    if settings.organizer.runner != "celery":
        raise SettingsError(
            "the jobs are run by `signalkeep organizer`, not by Celery",
            hint='Set organizer.runner = "celery" on every machine; then Celery runs them, and nobody else.',
        )
    app = Celery("signalkeep")
    app.conf.update(_transport(settings.broker) | _behaviour(), beat_schedule={job.name: _when(job) for job in jobs})
    runner = Runner(settings, clock)
    for job in jobs:
        _add_task(app, job, runner, settings)

    telemetry.configure(settings.log, "celery")
    signals.setup_logging.connect(_leave_logging_alone)
    return app


def _leave_logging_alone(**_: Any) -> None:
    """Celery sets up logging unless somebody says that he has done so."""


def _add_task(app: Celery, job: Job, runner: Runner, settings: Settings) -> None:
    async def once() -> Outcome:
        return await runner.run(job) if await _schema_is_there(settings) else Outcome.NO_DATABASE

    def run(task: Any) -> None:
        outcome = run_async(once())
        again = bool(task.request.delivery_info.get("redelivered"))  # what runs may be the rest of what was cut off
        if outcome is Outcome.NO_DATABASE or (outcome is Outcome.BUSY and again):
            time.sleep(limits.JOB_AGAIN_S)
            raise Reject(outcome.value, requeue=True)

    app.task(run, name=f"signalkeep.{job.name}", bind=True, time_limit=job.takes_s_max + limits.JOB_END_S)


async def _schema_is_there(settings: Settings) -> bool:
    """Looked at, and made if need be, until it is there: once for each process."""
    if not _schema_seen:
        try:
            await ensure_schema(dsn_of(settings), settings.database)
        except SignalkeepError as error:
            log.warning("jobs wait for the database", error=error.message, hint=error.hint)
            return False
        _schema_seen.add(True)
    return True


def _when(job: Job) -> dict[str, Any]:
    """An entry of beat's schedule. Beat remembers nothing over its end: every job is due when it starts."""
    return {
        "task": f"signalkeep.{job.name}",
        "schedule": job.every_s,
        "last_run_at": _LONG_AGO,
        # The broker's clock alone counts for it, so that the clocks of beat and workers may differ.
        "options": {"expiration": job.every_s, "confirm_timeout": limits.BROKER_PUBLISH_S_MAX},
    }


def _transport(broker: BrokerSettings) -> dict[str, Any]:
    """How the broker is reached, and what there must be in it."""
    parts = urlsplit(broker.resolved_url())
    tls: dict[str, Any] = {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": parts.hostname,
        "ca_certs": broker.ca_file,
        "certfile": broker.certificate,
        "keyfile": broker.key,
    }
    return {
        "broker_url": urlunsplit(parts._replace(query="")),  # options there are those of another library
        "broker_use_ssl": tls if parts.scheme == "amqps" else None,
        "broker_heartbeat": limits.BROKER_HEARTBEAT_S,
        "broker_connection_timeout": limits.BROKER_CALL_S_MAX,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever
        "broker_transport_options": {"confirm_publish": True},
        "task_publish_retry_policy": {
            "max_retries": None,
            "interval_start": limits.RETRY_S_MIN,
            "interval_step": limits.RETRY_S_MIN,
            "interval_max": limits.RETRY_S_MAX,
        },
        "task_default_queue": QUEUE,
        "task_queues": {
            QUEUE: {
                "exchange": QUEUE,
                "exchange_type": "topic",  # past a direct one Celery takes the default one, which may be closed to us
                "durable": True,
                "queue_arguments": dict(_QUEUE_ARGUMENTS),
            }
        },
    }


def _behaviour() -> dict[str, Any]:
    """How tasks are run."""
    return {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the lock holds back who gets the task then
        "worker_enable_remote_control": False,
        "worker_consumer": f"{__name__}:JobConsumer",
        "beat_scheduler": "celery.beat:Scheduler",  # the only one that keeps no file
    }


class JobConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Takes tasks from the queue, and makes nothing else in the broker.

    Workers need not know of each other, and no task is sent to be run later: without this, Celery would make some
    thirty queues and exchanges under names that the user of `broker.url` need not have the right to.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]  # Celery has no types
        """What a worker starts for its connection."""

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, without_mingle=True, without_gossip=True, without_heartbeat=True, **kwargs)
