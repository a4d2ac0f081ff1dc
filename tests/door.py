"""A TCP port of the loopback that leads to another one while it is open: a way that tests can cut.

Cut, it takes no connection, and those that went through it are closed.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from typing import Self

from tests.servers import free_port

IDLE_S_MAX = 60.0


class Door:
    """`port`: to connect to; `target`: where it leads. A context manager: open inside."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = 0
        self._server: socketserver.ThreadingTCPServer | None = None
        self._inside: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Let connections through."""
        door = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                door._lead(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, block_on_close = True, True, False

        assert self._server is None, "it is open"
        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Let nobody through. Closing it twice is no fault."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for one in list(self._inside):
            _end(one)

    def _lead(self, near: socket.socket) -> None:
        """Carry bytes both ways until either side ends."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.target), timeout=IDLE_S_MAX) as far:
            near.settimeout(IDLE_S_MAX)
            self._inside |= {near, far}
            back = threading.Thread(target=_carry, args=(far, near), daemon=True)
            back.start()
            _carry(near, far)
            back.join()
            self._inside -= {near, far}


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
