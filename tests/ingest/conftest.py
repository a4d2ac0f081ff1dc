"""An ingest service in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from signalkeep.config import Settings, load
from signalkeep.roles import prepare_directories
from tests.ingest.support import Service


@pytest.fixture
def settings(tmp_path: Path, dsn: str) -> Settings:
    made = load(
        tmp_path / "data",
        environ={"SIGNALKEEP_DATABASE__DSN": dsn, "SIGNALKEEP_UNKNOWN_DEVICES": "register"},
    )
    prepare_directories(made)
    return made


@pytest.fixture
async def start_service(settings: Settings) -> AsyncIterator[Callable[[], Service]]:
    started: list[Service] = []

    def start() -> Service:
        started.append(Service(settings))
        return started[-1]

    yield start
    for service in started:
        await service.end()
