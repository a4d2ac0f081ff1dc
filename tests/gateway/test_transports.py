"""A whole gateway over UDP, within TLS and behind a balancer, on this machine's disk; what it notes of connections."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import ssl
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from signalkeep import limits
from signalkeep.cli.main import app
from signalkeep.errors import AlreadyRunning, CallerError, SettingsError, SyncFailed
from signalkeep.gateway.listen import allow_descriptors, probe_ports, tcp_sockets
from signalkeep.gateway.service import GatewayService
from signalkeep.journal.record import FrameEntry, SessionEntry
from signalkeep.model import Reason
from signalkeep.protocols.teltonika_encoder import datagram
from tests.gateway.devices import answer, cut
from tests.gateway.test_doors import Papers
from tests.gateway.test_proxy_header import over_ipv4
from tests.gateway.test_service import Disk, Running, event, never, often, running, settings_in
from tests.gateway.test_udp import Device
from tests.protocols.test_teltonika_udp import EXAMPLE
from tests.servers import free_port, wait_until_async

__all__ = ["never", "often"]  # fixtures

ANSWER = bytes.fromhex("0005cafe010501")


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


async def listening(made: Running) -> None:
    await wait_until_async(lambda: made.ports or made.task.done(), what="the gateway listens")
    if made.task.done():
        await made.task


def sessions_of(made: Running) -> list[SessionEntry]:
    return [entry for entry in made.entries() if isinstance(entry, SessionEntry)]


def why_of(entry: SessionEntry) -> str:
    said: str = msgspec.json.decode(entry.detail)["why"]
    return said


# UDP


async def test_udp_is_served_at_the_number_of_tcp_unless_set_otherwise(tmp_path: Path) -> None:
    port = free_port()
    settings = settings_in(tmp_path, GATEWAY__PORTS=json.dumps({"teltonika": port, "json": 0}))
    assert settings.gateway.served_udp() == {"teltonika": port}
    async with running(settings) as made:
        await listening(made)
        assert made.ports["teltonika/udp"] == made.ports["teltonika"] == port
        assert "json/udp" not in made.ports
    settings = settings_in(tmp_path / "other", GATEWAY__UDP_PORTS="{}")
    assert settings.gateway.served_udp() == {}


async def test_a_datagram_is_answered_when_it_is_on_disk_and_not_before(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        await listening(made)
        device = Device(("127.0.0.1", made.ports["teltonika/udp"]))
        made.disk.gate.clear()
        device.say(EXAMPLE)
        await wait_until_async(lambda: made.service.held == 1)
        assert await device.silent()
        made.disk.gate.set()
        assert await device.answer() == ANSWER
        (entry,) = made.entries()
        assert isinstance(entry, FrameEntry)
        assert (entry.raw, entry.device_number, entry.context) == (EXAMPLE, "352093086403655", {"transport": "udp"})
        made.disk.full = True
        device.say(EXAMPLE)
        await wait_until_async(lambda: made.service.stats.frames == 2 and made.service.held == 0)
        assert await device.silent(), "what finds no room is not answered"
        made.disk.full = False
        device.say(EXAMPLE)
        assert await device.answer() == ANSWER
        device.socket.close()


async def test_a_failed_sync_answers_no_datagram(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        await listening(made)
        device = Device(("127.0.0.1", made.ports["teltonika/udp"]))
        made.disk.broken = True
        device.say(EXAMPLE)
        async with asyncio.timeout(30):
            with pytest.raises(SyncFailed):
                await made.task
        assert await device.silent()
        device.socket.close()


async def test_a_stop_answers_the_datagrams_that_were_taken(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        await listening(made)
        device = Device(("127.0.0.1", made.ports["teltonika/udp"]))
        made.disk.gate.clear()
        device.say(EXAMPLE)
        await wait_until_async(lambda: made.service.held == 1)
        made.stop.set()
        made.disk.gate.set()
        assert await device.answer() == ANSWER
        await made.end()
        device.socket.close()


async def test_send_speaks_udp(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        await listening(made)
        port = str(made.ports["teltonika/udp"])

        async def send(*options: str, text: str | None = None) -> Result:
            command = ["send", *options, "--udp", "--port", port]
            return await asyncio.to_thread(lambda: CliRunner().invoke(app, command, text))

        done = await send("teltonika", text=EXAMPLE.hex() + "\n")
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"< {ANSWER.hex()}")
        done = await send("teltonika", "--device", "356307042441013")
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "< 00050001010101")
        assert len(made.entries()) == 2
        assert isinstance((await send("json", "--device", "1")).exception, CallerError)


@pytest.mark.usefixtures("often")
async def test_refused_datagrams_are_in_the_tallies(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, UNKNOWN_DEVICES="refuse")
    async with running(settings) as made:
        await listening(made)
        device = Device(("127.0.0.1", made.ports["teltonika/udp"]))
        device.say(EXAMPLE)
        device.say(b"rubbish that is no datagram")
        refused = {Reason.REGISTRY_UNAVAILABLE: 1, Reason.TRUNCATED: 1}
        await wait_until_async(lambda: made.refused() == refused, what="the tally is journalled")
        assert made.service.stats.refusals == refused
        assert await device.silent()
        device.socket.close()


def test_a_udp_port_that_is_taken_is_named_before_anything_starts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(AlreadyRunning, match=rf"{port} \(teltonika/udp\)") as error:
            probe_ports("127.0.0.1", {}, {"teltonika": port})
        assert "SIGNALKEEP_GATEWAY__UDP_PORTS='{\"teltonika\": NUMBER}'" in error.value.hint
    probe_ports("127.0.0.1", {}, {"teltonika": port})


# TLS and PROXY


async def test_tls_and_a_header_by_setting(tmp_path: Path, papers: Papers) -> None:
    settings = settings_in(
        tmp_path,
        GATEWAY__TLS__PORTS='["json"]',
        GATEWAY__TLS__CERTIFICATE=str(papers.certificate),
        GATEWAY__TLS__KEY=str(papers.key),
        GATEWAY__PROXY_PROTOCOL='["json", "teltonika"]',
        GATEWAY__PROXY_FROM='["127.0.0.1"]',
    )
    async with running(settings) as made:
        reader, writer = await made.device("json")
        writer.write(over_ipv4())
        await writer.start_tls(papers.trusting(), server_hostname="localhost")
        writer.write(event(1))
        assert await answer(reader, 1) == b"1"
        assert {entry.peer for entry in made.entries() if not hasattr(entry, "counts")} == {"203.0.113.9:5123"}
        plain_reader, plain_writer = await made.device("teltonika")
        plain_writer.write(over_ipv4() + b"\0\x011")
        assert await answer(plain_reader, 1) == b"\x01"
        writer.close()
        plain_writer.close()


@pytest.mark.usefixtures("often")
async def test_a_new_certificate_is_noticed_by_itself(tmp_path: Path, papers: Papers) -> None:
    settings = settings_in(
        tmp_path,
        GATEWAY__TLS__PORTS='["json"]',
        GATEWAY__TLS__CERTIFICATE=str(papers.certificate),
        GATEWAY__TLS__KEY=str(papers.key),
    )
    other = papers.clients  # any other authority
    async with running(settings) as made:
        await listening(made)
        papers.issue(other)

        async def changed() -> bool:
            try:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", made.ports["json"], ssl=papers.trusting(other), server_hostname="localhost"
                )
            except ssl.SSLError:
                return False
            writer.close()
            return True

        await wait_until_async(changed, what="the new certificate is shown")


def test_a_missing_certificate_stops_the_start_and_leaves_no_journal(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, GATEWAY__TLS__PORTS='["json"]', GATEWAY__TLS__CERTIFICATE="/nowhere.pem", GATEWAY__TLS__KEY="/no.pem"
    )
    with pytest.raises(SettingsError, match=r"gateway\.tls\.certificate: /nowhere\.pem"):
        GatewayService(settings, fs=Disk(), clock=None, stop=asyncio.Event())  # type: ignore[arg-type]  # not reached
    assert list(settings.journal_root.iterdir()) == []


# What is noted of connections


@pytest.mark.usefixtures("never")
async def test_the_life_of_a_connection_is_journalled(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        peer = "{}:{}".format(*writer.get_extra_info("sockname"))
        writer.write(event(1) + event(2))
        assert await answer(reader, 2) == b"11"
        kinds = [type(entry).__name__ for entry in made.entries()]
        assert kinds == ["SessionEntry", "SessionEntry", "FrameEntry", "FrameEntry"]
        writer.close()
        await wait_until_async(lambda: len(made.entries()) == 5, what="the end is journalled")
        opened, identified, closed = sessions_of(made)
        assert [entry.kind for entry in (opened, identified, closed)] == ["opened", "identified", "closed"]
        assert {(entry.device_number, entry.protocol, entry.peer) for entry in sessions_of(made)} == {
            ("1", "json", peer)
        }
        assert opened.at_us <= identified.at_us <= closed.at_us
        detail = json.loads(closed.detail)
        assert (detail["why"], detail["frames"], detail["bytes"]) == ("closed by device", 2, len(event(1) + event(2)))


@pytest.mark.usefixtures("never")
async def test_connecting_alone_leaves_nothing_in_the_journal(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        for _ in range(50):
            _, writer = await made.device()
            writer.write(b"rubbish\n")
            writer.close()
        await wait_until_async(
            lambda: made.service.stats.connections_opened == 50 and made.service.connections_open == 0
        )
        assert made.entries() == []
        await made.end()
        assert made.refused() == {Reason.UNFRAMABLE: 50}
        assert sessions_of(made) == []


@pytest.mark.usefixtures("often")
async def test_every_way_to_end_is_journalled_with_its_reason(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, GATEWAY__FRAME_BYTES_MAX="1000")
    async with running(settings) as made:
        streams = [await made.device() for _ in range(4)]
        for reader, writer in streams:
            writer.write(event(1))
            assert await answer(reader, 1) == b"1"
        streams[0][1].write(b"{" + b" " * 2000)
        assert await cut(streams[0][0])
        made.clock.ahead_s = settings.gateway.idle_s + 1
        for reader, _ in streams[1:3]:
            assert await cut(reader)
        assert await cut(streams[3][0])
        last_reader, last_writer = await made.device()
        last_writer.write(event(1))
        assert await answer(last_reader, 1) == b"1"
        await made.end()
        ends = [why_of(entry) for entry in sessions_of(made) if entry.kind == "closed"]
        assert ends == ["oversized", "time_out", "time_out", "time_out", "gateway stopped"]
        assert made.refused() == {Reason.OVERSIZED: 1, Reason.TIME_OUT: 3}
        for _, writer in [*streams, (last_reader, last_writer)]:
            writer.close()


async def test_after_a_failed_sync_nothing_is_noted_any_more(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as made:
        reader, writer = await made.device()
        writer.write(event(1))
        assert await answer(reader, 1) == b"1"
        made.disk.broken = True
        writer.write(event(2))
        assert await cut(reader)
        with pytest.raises(SyncFailed):
            await made.task
        made.disk.broken = False
        assert [entry.kind for entry in sessions_of(made)] == ["opened", "identified"]
        writer.close()


# Sockets


def test_accepted_connections_are_probed_and_take_little_of_the_kernels_memory() -> None:
    (listening_socket,) = tcp_sockets("json", "127.0.0.1", 0)
    listening_socket.listen()
    with (
        listening_socket,
        socket.create_connection(listening_socket.getsockname()),
        listening_socket.accept()[0] as made,
    ):
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == limits.KEEPALIVE_IDLE_S
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == limits.KEEPALIVE_INTERVAL_S
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == limits.KEEPALIVE_PROBES
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * limits.SEND_BUFFER_BYTES


def test_the_limit_of_descriptors_is_raised_toward_the_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        allow_descriptors(500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500 + limits.DESCRIPTORS_SPARE, before[1])
        allow_descriptors(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 500 + limits.DESCRIPTORS_SPARE, "never lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_if_it_cannot_be_raised_somebody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from signalkeep.gateway import listen

    said: list[object] = []

    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(listen.log, "warning", lambda *_, **words: said.append(words["descriptors"]), raising=False)
    allow_descriptors(500)
    assert said == [100]


def test_a_record_that_came_by_udp_has_its_own_bytes_only() -> None:
    """What is journalled of a datagram is the datagram, so that it can be looked at as it came."""
    assert datagram("352093086403655", EXAMPLE[23:], packet_id=0xCAFE, avl_packet_id=5) == EXAMPLE
