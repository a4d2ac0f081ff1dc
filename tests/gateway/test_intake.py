"""The valve: every reason shuts it, all must be gone to open it, and it does not flutter."""

from __future__ import annotations

from signalkeep import limits
from signalkeep.gateway.intake import Intake, Shut


class Listener:
    def __init__(self) -> None:
        self.calls = 0

    def intake_changed(self) -> None:
        self.calls += 1


def test_reasons_add_up() -> None:
    intake, listener = Intake(), Listener()
    intake.join(listener)
    intake.set(Shut.DISK, True)
    intake.set(Shut.STOPPING, True)
    intake.set(Shut.DISK, False)
    assert not intake.open
    intake.set(Shut.STOPPING, False)
    assert intake.open
    assert listener.calls == 2, "told when it shut and when it opened, not in between"
    intake.leave(listener)
    intake.set(Shut.DISK, True)
    assert listener.calls == 2


def test_pending_has_hysteresis() -> None:
    intake = Intake()
    intake.follow_pending(limits.JOURNAL_PENDING_BYTES_MAX - 1)
    assert intake.open
    intake.follow_pending(limits.JOURNAL_PENDING_BYTES_MAX)
    assert not intake.open
    intake.follow_pending(limits.JOURNAL_PENDING_BYTES_MAX // 2 + 1)
    assert not intake.open
    intake.follow_pending(limits.JOURNAL_PENDING_BYTES_MAX // 2)
    assert intake.open


def test_disk_shuts_at_the_cap_and_at_the_floor_with_hysteresis() -> None:
    def state(intake: Intake, used: int, free: int) -> bool:
        intake.follow_disk(used_bytes=used, cap_bytes=1000, free_bytes=free, free_min_bytes=100)
        return intake.open

    intake = Intake()
    assert state(intake, 999, 100)
    assert not state(intake, 1000, 500)
    assert not state(intake, 960, 500)
    assert state(intake, 949, 500)
    assert not state(intake, 0, 99)
    assert not state(intake, 0, 104)
    assert state(intake, 0, 106)
