"""Whether a device's frame is taken in: by the registry, by the setting for unknown devices, and by byte caps.

Unknown devices are kept and acknowledged only within caps per device, per address and in all, so that nobody can
fill the disk with messages that no one asked for. Beyond them, no acknowledgement. Caps count what was accepted since
the process began, and forget a device when it is registered. While no registry has ever been seen there is no telling
who is unknown: then nothing is capped, and `refuse` refuses. Session entries of a connection count like a frame. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from signalkeep.model import DeviceStatus, Reason
from signalkeep.sections import UnknownDevices

FRAME_COST_MIN_BYTES = 512  # tiny frames cost a row each, too


class Caps(msgspec.Struct, frozen=True):
    """Bytes that unknown devices may leave with us."""

    per_device: int
    per_address: int
    total: int


class Policy:
    """Decides for one gateway process. `statuses`: None until a registry was seen."""

    def __init__(self, unknown_devices: UnknownDevices, caps: Caps) -> None:
        self._unknown_devices = unknown_devices
        self._caps = caps
        self._statuses: Mapping[str, DeviceStatus] | None = None
        self._by_device: dict[str, int] = {}  # only what was accepted is in here: the caps bound them
        self._by_address: dict[str, int] = {}
        self._address_of: dict[str, str] = {}
        self._total = 0

    def update(self, statuses: Mapping[str, DeviceStatus]) -> None:
        """Take over a new state of the registry: number -> status, without devices nobody registered."""
        self._statuses = statuses
        for number in [number for number in self._by_device if number in statuses]:
            spent = self._by_device.pop(number)
            self._total -= spent
            address = self._address_of.pop(number)
            left = self._by_address.pop(address, 0) - spent
            if left > 0:
                self._by_address[address] = left

    def refusal(self, device_number: str) -> Reason | None:
        """Why a device that says this number is turned away; None: it is welcome."""
        status = DeviceStatus.UNKNOWN if self._statuses is None else self._statuses.get(device_number)
        if status is DeviceStatus.RETIRED:
            return Reason.RETIRED_DEVICE
        if status is DeviceStatus.ACTIVE or self._unknown_devices != "refuse":
            return None
        return Reason.REGISTRY_UNAVAILABLE if self._statuses is None else Reason.UNKNOWN_REFUSED

    def admit(self, device_number: str, address: str, size_bytes: int) -> Reason | None:
        """Account for a frame of this size; a reason if it is beyond the caps."""
        if self._statuses is None or device_number in self._statuses:
            return None
        cost = max(size_bytes, FRAME_COST_MIN_BYTES)
        beyond = (
            self._by_device.get(device_number, 0) + cost > self._caps.per_device
            or self._by_address.get(address, 0) + cost > self._caps.per_address
            or self._total + cost > self._caps.total
        )
        if beyond:
            return Reason.UNKNOWN_CAP
        self._by_device[device_number] = self._by_device.get(device_number, 0) + cost
        self._by_address[address] = self._by_address.get(address, 0) + cost
        self._address_of[device_number] = address
        self._total += cost
        return None
