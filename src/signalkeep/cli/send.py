"""`send`: give a gateway messages by hand and see its answers. For trying a device's messages out.

One message a line, from a file or standard input: hexadecimal, or text for protocols that are text. All go
over one connection, and a blank line begins a new one; or each goes as a datagram. Each answer is waited for, and
said to be missing when none comes in time: some protocols never answer. Exit code 1 if the connection was refused
or closed. Bounded: line length, answer, waits.
"""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from signalkeep import limits
from signalkeep.cli.common import complete_protocol, err, out
from signalkeep.clock import SystemClock
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.protocols.contract import DatagramEncoder, DatagramProtocol
from signalkeep.protocols.registry import ENCODERS, get
from signalkeep.simulate.drive import EVENT_CODES, Drive

NEW_CONNECTION: Final = b""
QUIET_S: Final = 0.1  # an answer that has begun is over after this long without more of it


def send(
    *,
    protocol: Annotated[str, typer.Argument(help="protocol that the gateway serves", autocompletion=complete_protocol)],
    file: Annotated[Path, typer.Argument(help="messages, one a line; - is standard input")] = Path("-"),
    host: Annotated[str, typer.Option("--host", help="gateway to send to")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="default: the protocol's own")] = None,
    text: Annotated[
        bool | None, typer.Option("--text/--hex", help="what the lines are; default: what the protocol is")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="read nothing: send one made-up record of this device")
    ] = None,
    udp: Annotated[bool, typer.Option("--udp", help="send each line as a datagram")] = False,
    wait: Annotated[float, typer.Option("--wait", min=0.01, max=600, help="seconds to wait for an answer")] = 5.0,
) -> None:
    """Send messages to a gateway and print its answers."""
    spoken = get(protocol)
    if udp and not isinstance(spoken, DatagramProtocol):
        raise CallerError(f"{protocol} is not spoken over UDP", hint="Leave --udp out.")
    as_text = spoken.text if text is None else text
    address = (host, spoken.default_port if port is None else port)
    if device is not None:
        _converse(made_up(protocol, device, udp=udp), address, wait_s=wait, as_text=as_text, udp=udp)
    elif str(file) == "-":
        _converse(_messages(sys.stdin.buffer, as_text=as_text), address, wait_s=wait, as_text=as_text, udp=udp)
    else:
        try:
            opened = file.open("rb")
        except OSError as error:
            raise CallerError(f"{file}: {error.strerror}") from error
        with opened:
            _converse(_messages(opened, as_text=as_text), address, wait_s=wait, as_text=as_text, udp=udp)


def made_up(protocol: str, device_number: str, *, udp: bool = False) -> list[bytes]:
    """The login, if the protocol has one, and a packet with one record of a vehicle that drives now; or a datagram."""
    if protocol not in EVENT_CODES:
        known = ", ".join(EVENT_CODES)
        raise CallerError(f"{protocol}: nothing to write this protocol with", hint=f"--device works for {known}.")
    now = SystemClock().now()
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    source = random.Random(device_number)  # noqa: S311 - a made-up drive, not a secret
    drive = Drive(source, now - timedelta(seconds=60), EVENT_CODES[protocol])
    signal = drive.step(now)
    encoder = ENCODERS[protocol]
    if udp:
        assert isinstance(encoder, DatagramEncoder)
        return [encoder.encode_datagram(device_number, [signal], 1)]
    messages = [encoder.encode_login(device_number), encoder.encode_frame(device_number, [signal])]
    return [message for message in messages if message]


def _messages(lines: BinaryIO, *, as_text: bool) -> Iterator[bytes]:
    """The message of each line; NEW_CONNECTION for a blank one. Raises CallerError naming a bad line."""
    number = 0
    while line := lines.readline(limits.SEND_LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > limits.SEND_LINE_BYTES_MAX:
            raise CallerError(f"line {number} is longer than {limits.SEND_LINE_BYTES_MAX} bytes")
        if not line.strip():
            yield NEW_CONNECTION
        elif as_text:
            yield line if line.endswith(b"\n") else line + b"\n"
        else:
            try:
                yield bytes.fromhex(line.decode("ascii"))
            except ValueError as error:
                raise CallerError(
                    f"line {number} is not hexadecimal: {error}", hint="Use --text if the lines are messages."
                ) from error


def _converse(messages: Iterable[bytes], address: tuple[str, int], *, wait_s: float, as_text: bool, udp: bool) -> None:
    """Send each message, print its answer. Exit code 1 as soon as the connection is refused or closed."""
    connection: socket.socket | None = None
    try:
        for message in messages:
            if message == NEW_CONNECTION:
                if connection is not None:
                    connection.close()
                connection = None
                continue
            if connection is None:
                connection = _connect(address, wait_s, udp=udp)
            out.print(f"> {_shown(message, as_text=as_text)}", markup=False)
            _send_and_print(connection, message, wait_s=wait_s, as_text=as_text)
    finally:
        if connection is not None:
            connection.close()


def _connect(address: tuple[str, int], wait_s: float, *, udp: bool) -> socket.socket:
    try:
        if udp:
            family, kind, number, _, found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
            datagrams = socket.socket(family, kind, number)
            datagrams.connect(found)  # answers are heard from there only
            return datagrams
        return socket.create_connection(address, timeout=wait_s)
    except OSError as error:
        raise EnvironmentFault(
            f"{address[0]}:{address[1]}: {error.strerror or error}",
            hint="Is the gateway running, and on this port?",
        ) from error


def _send_and_print(connection: socket.socket, message: bytes, *, wait_s: float, as_text: bool) -> None:
    try:
        connection.settimeout(wait_s)
        connection.sendall(message)
        answer, closed = _answer(connection, wait_s)
    except TimeoutError:
        err.print(f"the gateway did not take the message within {wait_s:g} s")
        raise typer.Exit(1) from None
    except OSError as error:
        err.print(f"connection lost: {error.strerror or error}")
        raise typer.Exit(1) from None
    if answer:
        out.print(f"< {_shown(answer, as_text=as_text)}", markup=False)
    if closed:
        err.print("the gateway closed the connection" + ("" if answer else " without an answer"))
        raise typer.Exit(1)
    if not answer:
        err.print(f"no answer within {wait_s:g} s")


def _answer(connection: socket.socket, wait_s: float) -> tuple[bytes, bool]:
    """What comes until it is quiet, at most for `wait_s`; and whether the other side closed."""
    answer = b""
    deadline_s = time.monotonic() + wait_s
    while len(answer) < limits.SEND_ANSWER_BYTES_MAX:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        connection.settimeout(min(left_s, QUIET_S) if answer else left_s)
        try:
            piece = connection.recv(limits.SEND_ANSWER_BYTES_MAX - len(answer))
        except TimeoutError:
            break
        if not piece:
            return answer, True
        answer += piece
    return answer, False


def _shown(data: bytes, *, as_text: bool) -> str:
    return data.decode("utf-8", "backslashreplace").rstrip("\r\n") if as_text else data.hex()
