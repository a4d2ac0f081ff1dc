"""TLS between transport and session, without a socket: ciphertext in, plaintext out, and the other way round.

`TlsSource` reads certificate and key at the start and again whenever the files change: new connections get the new
pair, living ones keep theirs. A new pair that cannot be used is named once in the log, and the old one stays in force.
`TlsChannel` is one connection. TLS 1.2 and newer. With `client_ca` a device must have a certificate that it signed.
Nothing that is secret ever leaves this module: neither keys nor what a certificate says beyond its names.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from signalkeep.errors import SettingsError
from signalkeep.sections import TlsSettings
from signalkeep.telemetry import get_logger

READ_BYTES: Final = 64 * 1024

FileState: TypeAlias = tuple[int, int, int] | None

log = get_logger()


class TlsFailed(Exception):
    """The other side does not speak TLS as it must; `outgoing` still holds what tells it so."""


class TlsSource:
    """Certificate and key in their present state. Raises SettingsError if they cannot be used at the start."""

    def __init__(self, settings: TlsSettings) -> None:
        assert settings.certificate is not None
        assert settings.key is not None
        self._certificate, self._key, self._client_ca = settings.certificate, settings.key, settings.client_ca
        self._seen = self._state()
        self._context = self._load()

    def channel(self) -> TlsChannel:
        """For one new connection."""
        return TlsChannel(self._context)

    def refresh(self) -> None:
        """Look whether the files have changed; to be called now and then."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._context = self._load()
        except SettingsError as error:
            log.error("new certificate not usable, the old one stays in force", error=error.message)
        else:
            log.info("certificate read again", certificate=str(self._certificate))

    def _state(self) -> list[FileState]:
        return [_state_of(path) for path in (self._certificate, self._key, self._client_ca) if path is not None]

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        for setting, path in (("certificate", self._certificate), ("key", self._key), ("client_ca", self._client_ca)):
            if path is not None:
                _check_readable(setting, path)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise SettingsError(
                f"gateway.tls.certificate: {self._certificate} with gateway.tls.key: {self._key}: {_words(error)}",
                hint="Both must be PEM, the key must belong to the first certificate and have no password.",
            ) from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, ValueError) as error:
                raise SettingsError(
                    f"gateway.tls.client_ca: {self._client_ca}: {_words(error)}", hint="It must hold certificates, PEM."
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class TlsChannel:
    """One connection's TLS, the server's side."""

    __slots__ = ("_incoming", "_object", "_outgoing", "established", "finished")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.established = False
        self.finished = False  # the other side has said that nothing more comes

    def receive(self, data: bytes) -> bytes:
        """The plaintext in what has come; look at `outgoing` afterwards, whatever happens. Raises TlsFailed."""
        self._incoming.write(data)
        plain: list[bytes] = []
        try:
            if not self.established:
                self._object.do_handshake()
                self.established = True
            while not self.finished:
                piece = self._object.read(READ_BYTES)
                plain.append(piece)
                self.finished = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.finished = True
        except ssl.SSLError as error:
            raise TlsFailed(_words(error)) from error
        return b"".join(plain)

    def send(self, data: bytes) -> bytes:
        """The ciphertext of an answer, behind whatever else has to leave."""
        self._object.write(data)
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """What has to leave: parts of the handshake, alerts."""
        return self._outgoing.read()

    def close(self) -> bytes:
        """What says that nothing more comes from us."""
        with suppress(ssl.SSLError):  # the other side has not said it yet, or never will
            self._object.unwrap()
        return self._outgoing.read()

    def names(self) -> frozenset[str]:
        """Names in the certificate that the other side has proved to be its own; none if it has shown none."""
        certificate = self._object.getpeercert() or {}
        pairs: list[Any] = [*certificate.get("subjectAltName", ())]
        for group in certificate.get("subject", ()):
            pairs += [pair for pair in group if pair[0] == "commonName"]
        return frozenset(str(pair[1]) for pair in pairs)


def _state_of(path: Path) -> FileState:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _check_readable(setting: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise SettingsError(
            f"gateway.tls.{setting}: {path}: {error.strerror}", hint="Make the file readable to this user."
        ) from error


def _no_password() -> str:
    """Else OpenSSL would ask a person for it."""
    return ""


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error)
