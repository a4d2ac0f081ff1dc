"""Who gets messages in tests: a webhook that checks signatures, a mail server, and one that never answers.

Each listens on a free port of the loopback, in threads of its own, so that any test may use it.
"""

from __future__ import annotations

import email
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from signalkeep.notify.channels import SIGNATURE, TIMESTAMP, signature

SECRET = "hunter2-signs"


class Receiver:
    """A server with `port`; a context manager."""

    def __init__(self, server: socketserver.BaseServer, port: int) -> None:
        self._server = server
        self.port = port
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Webhook(Receiver):
    """Keeps what it is given; `statuses` are its next answers, then 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.statuses: list[int] = []
        self.on_message: Callable[[dict[str, Any]], None] = lambda _: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers[SIGNATURE] == signature(SECRET, self.headers[TIMESTAMP], body)
                message = json.loads(body)
                assert self.headers["Idempotency-Key"] == message["id"]
                status = outer.statuses.pop(0) if outer.statuses else 200
                outer.got.append(message)
                outer.on_message(message)
                self.send_response(status)
                if status in range(300, 400):
                    self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        super().__init__(server, server.server_port)
        self.url = f"http://127.0.0.1:{self.port}/hook/s3cr3t-path"
        self.settings = {"webhook": self.url, "secret": SECRET}

    @property
    def words(self) -> list[str]:
        return [message["what"] for message in self.got]


class Mail(Receiver):
    """Speaks as much SMTP as it takes to get mail."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 mail\r\n")
                while line := self.rfile.readline():
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        lines = iter(self.rfile.readline, b".\r\n")
                        outer.got.append(email.message_from_bytes(b"".join(lines)))
                    self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")

        socketserver.ThreadingTCPServer.daemon_threads = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        super().__init__(server, server.server_address[1])
        self.settings = {"apprise": mail_to(self.port)}


class Silent:
    """Takes connections and never says a word, until it closes. `settings`: by mail, whose own patience is longer."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.settings = {"apprise": mail_to(self.port), "timeout_s": 0.3}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Whoever waits is disconnected."""
        self._socket.close()


def mail_to(port: int) -> str:
    return f"mailto://127.0.0.1:{port}/?from=core@example.com&to=ops@example.com&mode=insecure"
