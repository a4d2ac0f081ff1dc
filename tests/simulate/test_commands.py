"""`simulate` and `send` as a person runs them, with the real encoders, against a gateway that speaks the protocols."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from signalkeep.cli.send import send
from signalkeep.cli.simulate import simulate
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.model import Decoded, DeviceSettings
from signalkeep.protocols import registry
from signalkeep.simulate.answers import ANSWERS
from signalkeep.simulate.drive import EVENT_CODES
from signalkeep.simulate.faulty import read_truth
from signalkeep.simulate.oracle import read_oracle
from tests.servers import free_port

app = typer.Typer()
app.command()(simulate)
app.command()(send)


def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


@contextmanager
def serving(converse: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server in a thread that hands each connection to `converse`; yields its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(20)
            try:
                converse(self.request)
            except (ConnectionError, EOFError):
                return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def teltonika(connection: socket.socket) -> None:
    exactly(connection, int.from_bytes(exactly(connection, 2)))
    connection.sendall(b"\x01")
    while True:
        head = exactly(connection, 8)
        body = exactly(connection, int.from_bytes(head[4:]) + 4)
        connection.sendall(body[1].to_bytes(4))


def json_events(connection: socket.socket) -> None:
    text = ""
    while piece := connection.recv(65536):
        text += piece.decode()
        while text.lstrip():
            try:
                _, end = json.JSONDecoder().raw_decode(text.lstrip())
            except ValueError:
                break
            text = text.lstrip()[end:]
            connection.sendall(b"1")


GATEWAYS = {"teltonika": teltonika, "json": json_events}


@pytest.mark.parametrize("protocol", GATEWAYS)
def test_simulate_until_everything_is_told_safe(protocol: str, tmp_path: Path) -> None:
    with serving(GATEWAYS[protocol]) as port:
        done = run(
            "simulate", "--devices", 5, "--rate", 100, "--duration", 0.3, "--protocol", protocol, "--port", port,
            "--oracle", tmp_path / "oracle", "--cut-rate", 0.1, "--json",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["generated"] == report["told_safe"] == 30
    assert report["unconfirmed"] == 0
    assert len(list(read_oracle(tmp_path / "oracle"))) == 30


def test_simulate_prints_a_table_and_fails_when_something_stays_unconfirmed() -> None:
    done = run("simulate", "--rate", 100, "--duration", 0.1, "--grace", 0, "--port", free_port())
    assert done.exit_code == 1
    assert "records unconfirmed" in done.stdout


def test_simulate_refuses_a_protocol_without_an_encoder() -> None:
    assert isinstance(run("simulate", "--protocol", "smoke").exception, CallerError)


def test_every_virtual_device_has_a_voice() -> None:
    assert ANSWERS.keys() == EVENT_CODES.keys() <= registry.ENCODERS.keys()


def test_send_a_made_up_record() -> None:
    with serving(teltonika) as port:
        done = run("send", "teltonika", "--device", "356307040000001", "--port", port)
    assert done.exit_code == 0, done.output
    answers = [line for line in done.stdout.splitlines() if line.startswith("<")]
    assert answers == ["< 01", "< 00000001"]


def test_send_lines_of_text_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "messages"
    file.write_text('{"a": 1}\n\n{"b": "[x]"}')  # two connections, no line end at the end
    received: list[bytes] = []

    def converse(connection: socket.socket) -> None:
        while piece := connection.recv(1024):
            received.append(piece)
            connection.sendall(b"1")

    with serving(converse) as port:
        done = run("send", "json", file, "--port", port)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == ['> {"a": 1}', "< 1", '> {"b": "[x]"}', "< 1"]
    assert received == [b'{"a": 1}\n', b'{"b": "[x]"}\n']


def test_send_hexadecimal_for_a_text_protocol() -> None:
    with serving(lambda connection: connection.sendall(exactly(connection, 2))) as port:
        done = run("send", "json", "--hex", "--port", port, stdin="beef\n")
    assert "> beef\n< beef\n" in done.stdout


def test_send_says_when_no_answer_came() -> None:
    ended = threading.Event()

    def silent(connection: socket.socket) -> None:
        while connection.recv(1024):
            pass
        ended.set()

    with serving(silent) as port:
        done = run("send", "teltonika", "--port", port, "--wait", 0.05, stdin="ff\n")
        assert ended.wait(20)
    assert done.exit_code == 0
    assert "no answer within 0.05 s" in done.output


@pytest.mark.parametrize("answer", [b"", b"\x00"])
def test_send_fails_when_the_connection_is_closed(answer: bytes) -> None:
    def closing(connection: socket.socket) -> None:
        connection.sendall(answer if connection.recv(1024) else b"")

    with serving(closing) as port:
        done = run("send", "teltonika", "--port", port, stdin="000f\nff\n")
    assert done.exit_code == 1
    assert "closed the connection" in done.output
    assert "> ff" not in done.stdout


def test_send_fails_when_nobody_listens() -> None:
    done = run("send", "teltonika", "--port", free_port(), stdin="ff\n")
    assert isinstance(done.exception, EnvironmentFault)


@pytest.mark.parametrize("stdin", ["no hex\n", "ff" * 200_000])
def test_send_names_a_line_that_is_no_message(stdin: str) -> None:
    with serving(lambda _: None) as port:
        done = run("send", "teltonika", "--port", port, stdin=stdin)
    assert isinstance(done.exception, CallerError)
    assert "line 1" in done.exception.message


def test_send_refuses_unknown_protocols() -> None:
    assert isinstance(run("send", "smoke", stdin="").exception, CallerError)


def test_simulate_along_a_track_with_its_own_times(tmp_path: Path) -> None:
    track = tmp_path / "track.csv"
    rows = [f"2026-05-01T08:00:{second:02d}Z,{52.5 + second / 10000},13.4" for second in range(10)]
    track.write_text("\n".join(["time,latitude,longitude", *rows]))
    with serving(teltonika) as port:
        done = run(
            "simulate", "--track", track, "--devices", 3, "--duration", 1, "--speed-factor", 10, "--port", port,
            "--start", "2026-05-02T08:00:00Z", "--no-drift", "--no-gaps", "--oracle", tmp_path / "oracle", "--json",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["generated"] in (29, 30)
    found = list(read_oracle(tmp_path / "oracle"))
    assert {record.longitude for record in found} == {13.4}
    assert {round(record.latitude or 0, 4) for record in found} <= {52.5 + number / 10000 for number in range(10)}
    assert min(record.device_time for record in found).isoformat() == "2026-05-02T08:00:00+00:00"


@pytest.mark.parametrize(
    "options",
    [
        ["--speed-factor", 2],
        ["--scenario", "rally"],
        ["--protocol", "json", "--transport", "udp"],
        ["--tls-insecure"],
        ["--tls", "--tls-ca", "/nowhere/ca.pem"],
        ["--tls", "--transport", "udp"],
        ["--wrong-clocks", 2],
        ["--faults", "tornado"],
        ["--faults", "all", "--fault-rate", 0],
        ["--faults", "all", "--duration", 0],
        ["--faults", "all", "--rate", 1_000_000],
        ["--faults", "all", "--wrong-clocks", 0.5],
        ["--faults", "all", "--oracle", "oracle.jsonl"],
        ["--fault-rate", 2],
        ["--truth", "truth.jsonl"],
        ["--track", "/nowhere/track.gpx"],
    ],
)
def test_simulate_refuses_what_has_no_effect_or_no_sense(options: list[object]) -> None:
    done = run("simulate", "--port", 1, "--duration", 1, *options)
    assert isinstance(done.exception, CallerError), done.output


def test_simulate_with_faults_and_their_truth(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    with serving(teltonika) as port:
        done = run(
            "simulate", "--faults", "teleport,flood", "--fault-rate", 2, "--truth", truth, "--devices", 4,
            "--rate", 100, "--duration", 0.5, "--start", "2026-05-02T08:00:00Z", "--port", port, "--no-gaps", "--json",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["told_safe"] == 50
    planted = read_truth(truth)
    assert planted
    assert {one.kind for one in planted} == {"teleport"}
    assert f"planted {len(planted)} faults of 1 kinds" in done.stderr
    assert "no place in these drives: flood" in done.stderr


def test_simulate_sends_the_faulty_records(tmp_path: Path) -> None:
    """Not the sound ones: what the gateway got decodes to what the label says."""
    received = bytearray()

    def converse(connection: socket.socket) -> None:
        exactly(connection, int.from_bytes(exactly(connection, 2)))
        connection.sendall(b"\x01")
        while True:
            head = exactly(connection, 8)
            body = exactly(connection, int.from_bytes(head[4:]) + 4)
            received.extend(head + body)
            connection.sendall(body[1].to_bytes(4))

    truth = tmp_path / "truth"
    with serving(converse) as port:
        done = run(
            "simulate", "--faults", "off_globe", "--truth", truth, "--devices", 1, "--rate", 100, "--duration", 0.4,
            "--port", port, "--cut-rate", 0, "--no-gaps", "--scenario", "long-haul",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    (label,) = read_truth(truth)
    frames, rest = [], bytes(received)
    while rest:
        end = 12 + int.from_bytes(rest[4:8])
        frames.append(rest[:end])
        rest = rest[end:]
    signals = [
        one.signal
        for frame in frames
        for one in registry.get("teltonika").decode(frame, label.device_number, {}, DeviceSettings())
        if isinstance(one, Decoded)
    ]
    off = [one.wire_time for one in signals if abs(one.latitude or 0) > 90 or abs(one.longitude or 0) > 180]
    assert off == list(label.records)


def test_simulate_refuses_a_start_that_is_no_time() -> None:
    done = run("simulate", "--start", "noon")
    assert done.exit_code == 2
    assert "2026-05-01T08:00:00Z" in done.output


def test_simulate_twice_with_one_start_gives_the_same_records(tmp_path: Path) -> None:
    with serving(teltonika) as port:
        for name in ("one", "again"):
            done = run(
                "simulate", "--devices", 4, "--rate", 200, "--duration", 0.5, "--port", port, "--seed", 5,
                "--start", "2026-05-02T08:00:00Z", "--oracle", tmp_path / name, "--cut-rate", 0.1,
            )  # fmt: skip
            assert done.exit_code == 0, done.output
    one, again = (
        sorted(json.dumps({**json.loads(line), "order": 0}) for line in (tmp_path / name).read_text().splitlines())
        for name in ("one", "again")
    )
    assert one == again
    assert len(one) == 100
