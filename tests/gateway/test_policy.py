"""Who is let in, and how much the unknown may leave."""

from __future__ import annotations

import pytest

from signalkeep.gateway.policy import FRAME_COST_MIN_BYTES, Caps, Policy
from signalkeep.model import DeviceStatus, Reason
from signalkeep.sections import UnknownDevices

ROOMY = Caps(per_device=1 << 20, per_address=1 << 20, total=1 << 20)
KNOWN = {"1": DeviceStatus.ACTIVE, "2": DeviceStatus.RETIRED}


@pytest.mark.parametrize(
    ("setting", "number", "expected"),
    [
        ("quarantine", "1", None),
        ("quarantine", "2", Reason.RETIRED_DEVICE),
        ("quarantine", "3", None),
        ("register", "3", None),
        ("refuse", "1", None),
        ("refuse", "3", Reason.UNKNOWN_REFUSED),
        ("refuse", "", Reason.UNKNOWN_REFUSED),
    ],
)
def test_refusal(setting: UnknownDevices, number: str, expected: Reason | None) -> None:
    policy = Policy(setting, ROOMY)
    policy.update(KNOWN)
    assert policy.refusal(number) is expected


def test_before_any_registry_was_seen_only_refuse_refuses_and_nothing_is_capped() -> None:
    assert Policy("refuse", ROOMY).refusal("1") is Reason.REGISTRY_UNAVAILABLE
    policy = Policy("quarantine", Caps(0, 0, 0))
    assert policy.refusal("1") is None
    assert policy.admit("1", "a", 10_000) is None


@pytest.mark.parametrize("caps", [Caps(2000, 9000, 9000), Caps(9000, 2000, 9000), Caps(9000, 9000, 2000)])
def test_each_cap_binds(caps: Caps) -> None:
    policy = Policy("quarantine", caps)
    policy.update(KNOWN)
    assert policy.admit("3", "a", 1000) is None
    assert policy.admit("3", "a", 1000) is None
    assert policy.admit("3", "a", 1000) is Reason.UNKNOWN_CAP
    assert policy.admit("1", "a", 1000) is None, "registered devices are never capped"


def test_tiny_frames_cost_more_than_their_bytes() -> None:
    policy = Policy("quarantine", Caps(2 * FRAME_COST_MIN_BYTES, 1 << 20, 1 << 20))
    policy.update({})
    assert [policy.admit("3", "a", 1) for _ in range(3)] == [None, None, Reason.UNKNOWN_CAP]


def test_a_registered_device_gives_its_share_back() -> None:
    policy = Policy("quarantine", Caps(2000, 2000, 2000))
    policy.update({})
    assert policy.admit("3", "a", 2000) is None
    assert policy.admit("4", "a", 600) is Reason.UNKNOWN_CAP
    policy.update({"3": DeviceStatus.ACTIVE})
    assert policy.admit("4", "a", 600) is None
