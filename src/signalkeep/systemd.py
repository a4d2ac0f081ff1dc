"""What a service manager that speaks systemd's protocol is told: ready, stopping, still moving. Without one, nothing.

A message is one datagram to the socket that NOTIFY_SOCKET names (sd_notify(3)). It never blocks and never fails:
whether somebody listens makes no difference to devices.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """`watchdog_s`: it wants to hear `WATCHDOG=1` at least that often; 0: it does not."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes the variables out of the environment, so that no child process takes them for its own."""
        address, usec, pid = (environ.pop(name, "") for name in OURS)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = bool(address) and usec.isdigit() and pid in {"", str(os.getpid())}
        self.watchdog_s = int(usec) / 1e6 if ours else 0.0

    def tell(self, *lines: str) -> None:
        """Such as `READY=1`, `STATUS=...`, `STOPPING=1`, `WATCHDOG=1`."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(lines).encode(), self._address)
