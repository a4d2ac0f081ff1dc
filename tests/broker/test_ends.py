"""What is told to end ends, even where the library below takes a cancellation for a broken connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.broker.consumer import Consumer
from signalkeep.broker.link import Link
from signalkeep.broker.service import RelayService
from signalkeep.clock import SystemClock
from signalkeep.errors import BrokerUnavailable
from signalkeep.journal.files import LocalFileSystem
from signalkeep.sections import BrokerSettings
from tests.broker.support import settings_for
from tests.broker.test_stream import Rig, rig
from tests.servers import wait_until_async

__all__ = ["rig"]  # a fixture
NOBODY = "amqp://nobody@127.0.0.1:1/"
SOON_S = 30.0


class Deaf:
    """A call into the library that turns the first cancellation of its task into an error of the connection."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def __call__(self, *_: object, **__: object) -> int:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not self.heard:
                self.heard = True
                raise BrokerUnavailable("the connection is gone") from None
            raise
        return 0

    heard = False


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Deaf:
    made = Deaf()
    monkeypatch.setattr(Link, "open", made)
    return made


async def test_a_consumer(deaf: Deaf) -> None:
    consumer = Consumer(BrokerSettings(url=NOBODY))
    await consumer.take({0, 1})
    await deaf.entered.wait()
    await asyncio.wait_for(consumer.close(), SOON_S)
    assert deaf.heard


async def test_a_stream(rig: Rig) -> None:
    """Or a relay that goes back to the cursor would never go on."""
    deaf = Deaf()
    rig.sender.publish = deaf  # type: ignore[method-assign]  # the test's own broker
    rig.see()
    rig.stream.start()
    await wait_until_async(deaf.entered.is_set, SOON_S)
    await asyncio.wait_for(rig.stream.stop(), SOON_S)
    assert deaf.heard


async def test_a_relay(deaf: Deaf, tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETRY_S_MAX", 0.5)
    stop = asyncio.Event()
    settings = settings_for(tmp_path, dsn, NOBODY, broker__publish_signals="true")
    service = RelayService(settings, fs=LocalFileSystem(), clock=SystemClock(), stop=stop)
    running = asyncio.create_task(service.run())
    await deaf.entered.wait()
    stop.set()
    await asyncio.wait_for(running, SOON_S)
    assert deaf.heard
