"""TLS and the PROXY protocol in front of a session, over real sockets and a journal whose syncs the test owns."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import trustme

from signalkeep.errors import SettingsError
from signalkeep.gateway import tls as gateway_tls
from signalkeep.gateway.tcp import Port
from signalkeep.gateway.tls import TlsSource
from signalkeep.model import Reason
from signalkeep.sections import TlsSettings
from tests.gateway.devices import answer, cut, silent
from tests.gateway.test_proxy_header import header, over_ipv4, over_ipv6
from tests.gateway.test_tcp import Gateway
from tests.gateway.toy import TOY
from tests.servers import wait_until_async

HERE = (IPv4Network("127.0.0.0/8"),)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Papers:
    """An authority and a server certificate, as files that can be exchanged."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.client_ca = folder / "cert.pem", folder / "key.pem", folder / "clients.pem"
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(self.client_ca)
        self.issue(self.authority)

    def issue(self, authority: trustme.CA) -> None:
        """A new pair by this authority."""
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.key.unlink(missing_ok=True)
        issued.private_key_pem.write_to_path(self.key)
        b"".join(part.bytes() for part in issued.cert_chain_pems)
        self.certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))

    def source(self, *, client_ca: bool = False) -> TlsSource:
        return TlsSource(
            TlsSettings(
                ports=("toy",),
                certificate=self.certificate,
                key=self.key,
                client_ca=self.client_ca if client_ca else None,
            )
        )

    def trusting(self, authority: trustme.CA | None = None, *, named: str = "") -> ssl.SSLContext:
        """What a device brings along."""
        context = ssl.create_default_context()
        (authority or self.authority).configure_trust(context)
        if named:
            self.clients.issue_cert(named, common_name=named).configure_cert(context)
        return context


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@asynccontextmanager
async def door(
    tls: TlsSource | None = None, proxy_from: tuple[IPv4Network, ...] = (), **settings: Any
) -> AsyncIterator[Gateway]:
    made = Gateway(**settings)
    port = Port(made.shared, TOY, tls, proxy_from)
    server = await asyncio.get_running_loop().create_server(port.connection, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for connection in list(made.shared.connections):
            connection.abort()


async def encrypted(made: Gateway, context: ssl.SSLContext) -> Streams:
    return await asyncio.open_connection("127.0.0.1", made.port, ssl=context, server_hostname="localhost")


# TLS


async def test_no_answer_before_the_sync_within_tls_either(papers: Papers) -> None:
    async with door(papers.source()) as made:
        reader, writer = await encrypted(made, papers.trusting())
        writer.write(b"I 1\nF a\n")
        assert await answer(reader, 6) == b"hello;"
        await made.has(1)
        assert await silent(reader)
        made.journal.sync()
        assert await answer(reader, 4) == b"A a;"
        ((entry),) = made.journal.sessions[:1]
        assert entry.peer.startswith("127.0.0.1:")
        writer.close()
        await wait_until_async(lambda: not made.shared.connections, what="closed with the device's close_notify")
        assert made.journal.sessions[-1].kind == "closed"


async def test_a_frame_that_could_not_be_stored_cuts_the_connection_within_tls_either(papers: Papers) -> None:
    async with door(papers.source()) as made:
        reader, writer = await encrypted(made, papers.trusting())
        writer.write(b"I 1\nF a\n")
        assert await answer(reader, 6) == b"hello;"
        await made.has(1)
        made.journal.sync(durable=False)
        assert await cut(reader)
        writer.close()


async def test_much_through_tls_in_both_directions(papers: Papers) -> None:
    async with door(papers.source()) as made:
        reader, writer = await encrypted(made, papers.trusting())
        writer.write(b"I 1\n")
        assert await answer(reader, 6) == b"hello;"
        expected = b""
        for number in range(50):
            text = b"%03d" % number + b"x" * 20_000
            writer.write(b"F " + text + b"\n")
            expected += b"A " + text + b";"
        said = asyncio.create_task(reader.readexactly(len(expected)))
        while not said.done():
            made.journal.sync()
            await asyncio.sleep(0)
        assert await said == expected
        writer.close()


async def test_a_device_without_tls_is_refused_and_counted(papers: Papers) -> None:
    async with door(papers.source()) as made:
        reader, writer = await made.connect()
        writer.write(b"I 1\nF a\n" * 10)
        await wait_until_async(lambda: made.shared.refusals == {Reason.TLS_FAILED: 1})
        async with asyncio.timeout(10):
            await reader.read()
        await wait_until_async(lambda: not made.shared.connections)
        assert made.journal.waiting == []
        writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(papers: Papers) -> None:
    context = papers.trusting()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with door(papers.source()) as made:
        with pytest.raises(OSError):
            await encrypted(made, context)
        await wait_until_async(lambda: made.shared.refusals == {Reason.TLS_FAILED: 1})


async def test_the_handshake_has_to_be_done_in_time(papers: Papers) -> None:
    async with door(papers.source(), handshake_s=1.0) as made:
        _, writer = await made.connect()
        writer.write(b"\x16\x03\x01")
        await wait_until_async(lambda: made.shared.stats.bytes_received == 3)
        (connection,) = made.shared.connections
        now = made.shared.monotonic()
        assert connection.overdue(now) is None
        assert connection.overdue(now + 2) is Reason.TIME_OUT
        writer.close()


async def test_only_a_certificate_that_names_the_device_makes_its_frames_authentic(papers: Papers) -> None:
    async with door(papers.source(client_ca=True)) as made:
        reader, writer = await encrypted(made, papers.trusting(named="356307042441013.devices.example"))
        writer.write(b"I 356307042441013.devices.example\nF a\nI 2\nF b\n")
        assert await answer(reader, 6) == b"hello;"
        await made.has(2)
        assert [entry.authenticated for entry, _ in made.journal.waiting] == [True, False]
        writer.close()
        with pytest.raises(OSError):
            reader, writer = await encrypted(made, papers.trusting())
            writer.write(b"I 3\nF c\n")
            await answer(reader, 6)
        await wait_until_async(lambda: made.shared.refusals == {Reason.TLS_FAILED: 1})


async def test_without_a_client_ca_nothing_is_authentic(papers: Papers) -> None:
    async with door(papers.source()) as made:
        reader, writer = await encrypted(made, papers.trusting(named="device1.example"))
        writer.write(b"I device1.example\nF a\n")
        assert await answer(reader, 6) == b"hello;"
        await made.has(1)
        assert [entry.authenticated for entry, _ in made.journal.waiting] == [False]
        writer.close()


async def test_a_new_certificate_is_read_without_a_restart_and_a_broken_one_is_not_used(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gateway_tls.log, "error", lambda event, **_: said.append(event), raising=False)
    monkeypatch.setattr(gateway_tls.log, "info", lambda event, **_: said.append(event), raising=False)
    source, other = papers.source(), trustme.CA()
    async with door(source) as made:
        reader, writer = await encrypted(made, papers.trusting())
        source.refresh()
        assert said == []
        papers.issue(other)
        source.refresh()
        assert said == ["certificate read again"]
        _, second = await encrypted(made, papers.trusting(other))
        writer.write(b"I 1\n")
        assert await answer(reader, 6) == b"hello;", "a living connection keeps what it has"
        papers.key.write_bytes(b"no key")
        source.refresh()
        source.refresh()
        assert said[1:] == ["new certificate not usable, the old one stays in force"], "once"
        _, third = await encrypted(made, papers.trusting(other))
        papers.certificate.unlink()
        source.refresh()
        assert len(said) == 3
        _, fourth = await encrypted(made, papers.trusting(other))
        papers.issue(papers.authority)
        source.refresh()
        assert said[3:] == ["certificate read again"]
        _, fifth = await encrypted(made, papers.trusting())
        for stream in (writer, second, third, fourth, fifth):
            stream.close()


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"])
def test_papers_that_cannot_be_used_are_named_with_their_setting(
    papers: Papers, name: str, content: bytes | None
) -> None:
    path: Path = getattr(papers, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"gateway\.tls\.{name}.*{path.name}") as error:
        papers.source(client_ca=True)
    assert error.value.hint


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(papers: Papers) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(papers.key.read_bytes(), None)
    papers.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(SettingsError, match=r"gateway\.tls\.key"):
        papers.source()


# PROXY


@pytest.mark.parametrize("by_bytes", [False, True])
@pytest.mark.parametrize(
    ("first", "peer"), [(over_ipv4(), "203.0.113.9:5123"), (over_ipv6(), "2001:db8::9:5123")], ids=["ipv4", "ipv6"]
)
async def test_the_address_in_the_header_is_the_devices(first: bytes, peer: str, by_bytes: bool) -> None:
    async with door(proxy_from=HERE) as made:
        reader, writer = await made.connect()
        stream = first + b"I 1\nF a\n"
        for piece in [bytes([byte]) for byte in stream] if by_bytes else [stream]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        assert await answer(reader, 6) == b"hello;"
        await made.has(1)
        assert made.journal.waiting[0][0].peer == peer
        assert [entry.peer for entry in made.journal.sessions] == [peer, peer]
        assert made.shared.connections_by_address == {peer.rpartition(":")[0]: 1}
        made.journal.sync()
        assert await answer(reader, 4) == b"A a;"
        writer.close()
        await wait_until_async(lambda: not made.shared.connections)
        assert made.shared.connections_by_address == {}


async def test_without_an_address_in_the_header_the_balancers_stands() -> None:
    async with door(proxy_from=HERE) as made:
        reader, writer = await made.connect()
        writer.write(header(1, 0, b"") + b"I 1\nF a\n")
        assert await answer(reader, 6) == b"hello;"
        await made.has(1)
        assert made.journal.waiting[0][0].peer.startswith("127.0.0.1:")
        writer.close()


@pytest.mark.parametrize("stream", [b"I 1\nF a\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nI 1\nF a\n"])
async def test_without_a_valid_header_nothing_is_taken(stream: bytes) -> None:
    async with door(proxy_from=HERE) as made:
        reader, writer = await made.connect()
        writer.write(stream)
        assert await cut(reader)
        assert made.shared.refusals == {Reason.PROXY_HEADER: 1}
        assert made.journal.waiting == []
        writer.close()


async def test_a_header_that_was_cut_off_is_refused_and_nothing_at_all_is_not() -> None:
    async with door(proxy_from=HERE) as made:
        for first, counted in ((b"", {}), (over_ipv4()[:20], {Reason.PROXY_HEADER: 1})):
            reader, writer = await made.connect()
            writer.write(first)
            writer.write_eof()
            assert await cut(reader)
            assert made.shared.refusals == counted
            writer.close()


async def test_nobody_else_may_say_where_a_connection_comes_from() -> None:
    async with door(proxy_from=(IPv4Network("10.0.0.0/8"),)) as made:
        reader, writer = await made.connect()
        writer.write(over_ipv4() + b"I 1\nF a\n")
        assert await cut(reader)
        assert made.shared.refusals == {Reason.PROXY_HEADER: 1}
        assert not made.shared.connections
        writer.close()


async def test_a_balancer_that_asks_whether_we_live_is_let_go_quietly() -> None:
    async with door(proxy_from=HERE) as made:
        reader, writer = await made.connect()
        writer.write(header(0, 0, b""))
        assert await cut(reader)
        await wait_until_async(lambda: not made.shared.connections)
        assert made.shared.refusals == {}
        writer.close()


async def test_limits_per_address_count_the_devices_behind_the_balancer() -> None:
    async with door(proxy_from=HERE, connections_per_address_max=1) as made:
        kept = []
        for source in ("203.0.113.1", "203.0.113.2"):
            reader, writer = await made.connect()
            writer.write(over_ipv4(source) + b"I 1\n")
            assert await answer(reader, 6) == b"hello;"
            kept.append(writer)
        reader, writer = await made.connect()
        writer.write(over_ipv4("203.0.113.1") + b"I 1\n")
        assert await cut(reader)
        assert made.shared.refusals == {Reason.ADDRESS_LIMIT: 1}
        for stream in [*kept, writer]:
            stream.close()


async def test_a_header_may_stand_before_tls(papers: Papers) -> None:
    async with door(papers.source(), proxy_from=HERE) as made:
        reader, writer = await made.connect()
        writer.write(over_ipv4())
        await writer.start_tls(papers.trusting(), server_hostname="localhost")
        writer.write(b"I 1\nF a\n")
        assert await answer(reader, 6) == b"hello;"
        await made.has(1)
        assert made.journal.waiting[0][0].peer == "203.0.113.9:5123"
        made.journal.sync()
        assert await answer(reader, 4) == b"A a;"
        writer.close()
