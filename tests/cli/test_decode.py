"""The command decode: a line out for each message in, whatever the message is."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from signalkeep import limits
from signalkeep.cli.decode import decode
from signalkeep.errors import CallerError
from signalkeep.model import Context, Decoded, DeviceSettings, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols import registry
from signalkeep.protocols.contract import AckClass, Event, Frame, Identified, Refused, Reply

TALK = (
    rb'{ "device_number": "86915304265485", "event_code": "4002", "message_date": "2020\/02\/05 12:18:28", '
    rb'"latitude": "37.9815116", "longitude": "23.7315200"}'
)
TALKS_SIGNAL = {
    "device_number": "86915304265485",
    "device_time": "2020-02-05T12:18:28.000Z",
    "fix_valid": True,
    "latitude": 37.9815116,
    "longitude": 23.73152,
    "altitude_m": None,
    "speed_kmh": None,
    "course_deg": None,
    "satellites": None,
    "event_code": "4002",
    "attributes": {},
}
NOTHING: dict[str, Any] = {"signals": [], "replies": [], "refused": []}


class ToySession:
    """Messages end with a semicolon: I identity, D data, C data with a wrong checksum, H heartbeat, S silence."""

    def __init__(self) -> None:
        self._rest = b""
        self._identified = False
        self._closed = False

    def feed(self, data: bytes) -> Iterator[Event]:
        *messages, self._rest = (self._rest + data).split(b";")
        for message in messages:
            if not self._closed:
                yield from self._events(message)

    def end(self) -> Iterator[Event]:
        if self._rest and not self._closed:
            yield Refused(Reason.TRUNCATED, self._rest, recoverable=False)

    def _events(self, message: bytes) -> Iterator[Event]:
        kind = message[:1]
        refusal = None
        if kind == b"I":
            self._identified = True
            yield Identified(message[1:].decode(), b"welcome")
        elif kind in b"DC" and not self._identified:
            refusal = Refused(Reason.NO_IDENTITY, message, recoverable=False)
        elif kind == b"D":
            yield Frame(message, {"told": "yes"}, b"ack")
        elif kind == b"C":
            refusal = Refused(
                Reason.CHECKSUM, message, recoverable=False, frame=Frame(message, {"told": "yes"}, b"ack")
            )
        elif kind == b"H":
            yield Reply(b"beat")
        elif kind != b"S":
            refusal = Refused(Reason.UNFRAMABLE, message, recoverable=False)
        if refusal:
            self._closed = True
            yield refusal


class ToyProtocol:
    name = "toy"
    default_port = 1
    transports: tuple[str, ...] = ("tcp",)
    ack_class = AckClass.PER_PACKET
    text = False

    def session(self) -> ToySession:
        return ToySession()

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        if frame == b"DE":
            raise RuntimeError("a mistake of ours")
        if frame == b"DU":
            return [Undecodable(Reason.BAD_FORMAT, "unreadable\nhere", frame)]
        attributes = {"raw": frame.decode("latin-1"), "device": device_number, **context}
        return [Decoded(Signal(wire_time=None, device_time=None, attributes=attributes), frame)]

    def encode_login(self, device_number: str) -> bytes:
        return f"I{device_number};".encode()

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PROTOCOLS, "toy", ToyProtocol())
    monkeypatch.setitem(registry.ENCODERS, "toy", ToyProtocol())


def call(*arguments: str, lines: list[bytes], exit_code: int = 0) -> list[str]:
    """The lines of standard output."""
    app = typer.Typer()
    app.command()(decode)
    result = CliRunner().invoke(app, arguments, input=b"\n".join(lines) + b"\n")
    assert result.exit_code == exit_code, result.output
    return result.stdout.splitlines()


def answers(*arguments: str, lines: list[bytes], exit_code: int = 0) -> list[dict[str, Any]]:
    printed = call(*arguments, "--json", lines=lines, exit_code=exit_code)
    return [msgspec.json.decode(line) for line in printed]


def toy(*messages: str, lenient: bool = False) -> list[dict[str, Any]]:
    lines = [message.encode("latin-1").hex().encode() for message in messages]
    return answers("toy", *(["--lenient"] if lenient else []), lines=lines)


def reasons(answer: dict[str, Any]) -> list[str]:
    return [refused["reason"] for refused in answer["refused"]]


@pytest.mark.parametrize("line", [TALK, TALK + b"\r"])
def test_the_talks_event_as_text(line: bytes) -> None:
    expected = {"signals": [TALKS_SIGNAL], "replies": ["31"], "refused": []}
    assert answers("json", "--text", lines=[line, line]) == [expected, expected]


def test_the_talks_event_as_hexadecimal() -> None:
    assert answers("json", lines=[TALK.hex().upper().encode()])[0]["signals"] == [TALKS_SIGNAL]


def test_for_people_it_is_one_line_with_the_same_in_it() -> None:
    (line,) = call("json", "--text", lines=[TALK])
    assert line == "86915304265485 2020-02-05T12:18:28.000Z 37.9815116 23.73152 valid event_code=4002; reply: 31"
    junk, nothing, nobody = call("json", "--text", lines=[b"junk", b"\xef\xbb\xbf", b'{"note": "\\u001b[1m"}'])
    assert junk == "refused: unframable"
    assert nothing == "refused: unframable"
    assert nobody == r'no device no time no position no fix note="\u001b[1m"; reply: 31'
    assert call("toy", lines=[b"I7;DU;".hex().encode()]) == [
        r"refused: bad_format unreadable\nhere; reply: 77656c636f6d65; reply: 61636b"
    ]


def test_junk_and_cut_messages_cost_only_their_own_line() -> None:
    found = answers("json", "--text", lines=[b"junk", TALK[:-1], TALK[:90], TALK])
    assert [reasons(answer) for answer in found] == [["unframable"], ["truncated"], ["truncated"], []]
    assert found[0]["refused"][0] == {"reason": "unframable", "detail": "", "sample": b"junk".hex()}
    assert found[3]["signals"] == [TALKS_SIGNAL]


def test_what_cannot_be_decoded_is_refused_with_its_detail_and_still_answered() -> None:
    (found,) = answers("json", "--text", lines=[b'{"device_number": "1", "latitude": "north"}'])
    assert found["signals"] == []
    assert found["replies"] == ["31"]
    assert reasons(found) == ["bad_value"]
    assert found["refused"][0]["detail"] == "latitude is 'north'"


def test_a_line_that_is_not_hexadecimal_is_named_and_the_rest_goes_on() -> None:
    lines = [b"xyz", b"414", "\u0664\u0661".encode(), TALK.hex().encode()]
    found = answers("json", lines=lines, exit_code=2)
    assert [reasons(answer) for answer in found] == [["not_hex"]] * 3 + [[]]
    assert found[3]["signals"] == [TALKS_SIGNAL]


def test_a_line_that_is_too_long_is_named_and_the_rest_goes_on() -> None:
    most = limits.SEND_LINE_BYTES_MAX
    lines = [b"x" * (most + 1), b"x" * (5 * most), TALK, b"x" * most]
    found = answers("json", "--text", lines=lines, exit_code=2)
    assert [reasons(answer) for answer in found] == [["line_too_long"], ["line_too_long"], [], ["unframable"]]


def test_an_unknown_protocol_is_the_callers_error() -> None:
    app = typer.Typer()
    app.command()(decode)
    result = CliRunner().invoke(app, ["nonsense"])
    assert isinstance(result.exception, CallerError)
    assert "json" in result.exception.hint


def test_replies_come_in_order_and_silence_is_a_line_too() -> None:
    login, data, silence, beat = toy("I7;", "Da;H;Db;", "S;", "H;")
    assert login == NOTHING | {"replies": [b"welcome".hex()]}
    assert data["replies"] == [b"ack".hex(), b"beat".hex(), b"ack".hex()]
    assert [signal["attributes"]["raw"] for signal in data["signals"]] == ["Da", "Db"]
    assert {signal["device_number"] for signal in data["signals"]} == {"7"}
    assert data["signals"][0]["attributes"]["told"] == "yes"  # the frame's context reaches the decoder
    assert silence == NOTHING
    assert beat == NOTHING | {"replies": [b"beat".hex()]}


def test_after_a_refusal_the_session_is_closed_up_to_a_blank_line() -> None:
    found = toy("I7;Da;X;", "Db;", "Dc;", "", "Dd;", "", "", "I8;Dd;")
    assert [reasons(answer) for answer in found] == [
        ["unframable"], ["session_closed"], ["session_closed"], ["no_identity"], []
    ]  # fmt: skip
    assert len(found[0]["signals"]) == 1
    assert found[0]["refused"][0]["detail"] == "ends the connection"
    assert found[4]["signals"][0]["device_number"] == "8"


def test_a_message_that_is_cut_off_does_not_swallow_the_next() -> None:
    found = toy("I7;", "Da", "Db;", "Dc;Dd", "De;")
    assert [reasons(answer) for answer in found] == [[], ["truncated"], [], ["truncated"], []]
    assert found[1]["refused"][0]["detail"] == "the line stops within a message"
    assert [len(answer["signals"]) for answer in found] == [0, 0, 1, 1, 1]
    assert found[4]["signals"][0]["device_number"] == "7"
    *_, last = toy("I7;", "I8;Da", "Db;")
    assert [(signal["device_number"], signal["attributes"]["raw"]) for signal in last["signals"]] == [("8", "Db")]


def test_a_wrong_checksum_is_refused_and_closes() -> None:
    found = toy("I7;", "Ca;", "Da;")
    assert [reasons(answer) for answer in found] == [[], ["checksum"], ["session_closed"]]
    assert found[1]["replies"] == []


def test_lenient_a_wrong_checksum_is_a_flag_without_a_reply() -> None:
    _, wrong, right = toy("I7;", "Ca;", "Da;", lenient=True)
    assert wrong["refused"] == wrong["replies"] == []
    (signal,) = wrong["signals"]
    assert signal["device_number"] == "7"
    assert signal["attributes"] == {"raw": "Ca", "device": "7", "told": "yes", "checksum_valid": False}
    assert "checksum_valid" not in right["signals"][0]["attributes"]
    assert right["replies"] == [b"ack".hex()]


def test_lenient_a_message_before_any_login_has_no_device() -> None:
    first, wrong, cut, login, last = toy("Da;", "Cb;", "Dc", "I7;", "Dd;", lenient=True)
    assert [signal["device_number"] for signal in first["signals"] + wrong["signals"]] == [None, None]
    assert first["replies"] == [b"ack".hex()]
    assert first["signals"][0]["attributes"]["device"] == ""
    assert reasons(cut) == ["truncated"]
    assert login["replies"] == [b"welcome".hex()]
    assert last["signals"][0]["device_number"] == "7"


def test_lenient_without_an_encoder_there_is_nobody_to_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry.ENCODERS, "toy")
    assert reasons(toy("Da;", lenient=True)[0]) == ["no_identity"]


def test_a_decoders_mistake_costs_one_message() -> None:
    _, mistake, right = toy("I7;", "DE;", "Da;")
    assert reasons(mistake) == ["decoder_error"]
    assert mistake["refused"][0]["detail"] == "RuntimeError: a mistake of ours"
    assert len(right["signals"]) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("D\u0080;".encode(), "D\u0080"),  # typed in a terminal, meant as the byte 80
        (b"D\x80;", "D\u0080"),
        (b"Da;\r", "Da"),
        ("D\u0411;".encode(), "D\u00d0\u0091"),  # latin-1 cannot write it: two bytes of UTF-8
    ],
)
def test_bytes_of_text(line: bytes, expected: str) -> None:
    (found,) = answers("toy", "--text", lines=[b"I7;" + line])
    assert found["signals"][0]["attributes"]["raw"] == expected
    assert found["refused"] == []


def test_json_is_utf_8() -> None:
    (found,) = answers("json", "--text", lines=['{"note": "\u00e4"}'.encode()])
    assert found["signals"][0]["attributes"] == {"note": "\u00e4"}
    assert found["signals"][0]["device_number"] is None


class Output(io.StringIO):
    """Standard output as its reader sees it: only what was flushed."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


def test_an_answer_leaves_before_the_next_message_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output()
    answered: list[int] = []

    class Asking(io.BytesIO):
        """Somebody who looks at each answer before typing on."""

        def readline(self, size: int | None = -1) -> bytes:
            answered.append(output.seen.count("\n"))
            return super().readline(size)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Asking(TALK + b"\nxyz\n\n" + TALK + b"\n")))
    monkeypatch.setattr(sys, "stdout", output)
    decode("json", text=True, json_output=True)
    assert answered == [0, 1, 2, 2, 3]
