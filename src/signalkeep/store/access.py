"""The embedded server's door for programs that only read: one address, one login, one password, nothing else.

Set by `database.listen`; without it the server listens on no network address. The login `signalkeep_bi` may read what
its group `signalkeep_reader` may, in read-only transactions of bounded length, over a bounded number of connections.
pg_hba.conf gets a block of ours at each start: over the network this login, by SCRAM, and by TLS where a certificate
is set; everything else, the superuser first of all, is refused there.

There is no default password. The server never sees it, only what SCRAM derives from it, so that it can stand in no log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.sections import DatabaseSettings
from signalkeep.store.binaries import Account
from signalkeep.store.durable import sync_path, write_whole
from signalkeep.store.postgres import EMBEDDED_NAME, SOCKET_FILE, connect

LOGIN: Final = "signalkeep_bi"
READER: Final = "signalkeep_reader"
BEGIN: Final = "# signalkeep: begin. Written anew at each start; put lines of your own below the end."
END: Final = "# signalkeep: end"
PORT_INSIDE: Final = 5432
_ITERATIONS: Final = 4096
_PASSWORD_BYTES: Final = 24

# Makes the group and the login, or brings them up to date.
_ROLES: Final = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
        CREATE ROLE {READER} NOLOGIN; -- what it may read, the schema says
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{LOGIN}') THEN
        CREATE ROLE {LOGIN} LOGIN;
    END IF;
END $$;
ALTER ROLE {LOGIN} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT {limits.READER_CONNECTIONS_MAX};
GRANT {READER} TO {LOGIN};
ALTER ROLE {LOGIN} SET default_transaction_read_only = on;
ALTER ROLE {LOGIN} SET statement_timeout = '{limits.READER_STATEMENT_S_MAX}s';
ALTER ROLE {LOGIN} SET idle_in_transaction_session_timeout = '{limits.READER_STATEMENT_S_MAX}s';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE TEMPORARY ON DATABASE {EMBEDDED_NAME} FROM PUBLIC;
"""  # noqa: S608 - constant names and numbers


class Door(msgspec.Struct, frozen=True):
    """Where the server listens, and who may come in with what."""

    host: str
    port: int
    verifier: str  # what SCRAM derives from the password
    certificate: Path | None = None  # copies that the server's account can read
    key: Path | None = None


def reader_address(settings: DatabaseSettings) -> str:
    """What to tell a program that reads; '' if the server does not listen."""
    return f"postgresql://{LOGIN}@{settings.listen}/{EMBEDDED_NAME}" if settings.listen else ""


def password_file(data: Path, settings: DatabaseSettings) -> Path:
    """Where the password stands."""
    return settings.reader_password_file or data / "secrets" / "reader-password"


def prepare(data: Path, settings: DatabaseSettings, programs: Path, directory: Path, account: Account) -> Door | None:
    """Before a start: read or make the password, check the address, write our part of pg_hba.conf.

    Raises CallerError or EnvironmentFault with what to do, if the door cannot be what the settings say.
    """
    if not settings.listen:
        _write_rules(directory, account, [])
        return None
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    verifier = scram_verifier(_password(data, settings), secrets.token_bytes(16))
    _probe(host, int(port))
    certificate = key = None
    if settings.listen_certificate is not None and settings.listen_key is not None:
        _refuse_without_tls(programs, directory, account)
        certificate = _copy_for(account, settings.listen_certificate, directory.parent / "tls" / "certificate.pem")
        key = _copy_for(account, settings.listen_key, directory.parent / "tls" / "key.pem")
    _write_rules(directory, account, _rules(tls=key is not None))
    return Door(host, int(port), verifier, certificate, key)


def arguments(door: Door | None) -> list[str]:
    """What the server is told on its command line about where it listens."""
    if door is None:
        return ["-c", "listen_addresses=", "-c", f"port={PORT_INSIDE}", "-c", "ssl=off"]
    told = ["-c", f"listen_addresses={door.host}", "-c", f"port={door.port}", "-c", "password_encryption=scram-sha-256"]
    if door.key is None:
        return [*told, "-c", "ssl=off"]
    return [*told, "-c", "ssl=on", "-c", f"ssl_cert_file={door.certificate}", "-c", f"ssl_key_file={door.key}"]


def socket_name(door: Door | None) -> str:
    """The file name of the server's own socket: PostgreSQL puts its port there."""
    return SOCKET_FILE if door is None else f".s.PGSQL.{door.port}"


def link_socket(sockets: Path, door: Door | None) -> None:
    """Keep the socket under the one name by which everything of ours knows it, whatever the port."""
    usual = sockets / SOCKET_FILE
    if usual.is_symlink():
        usual.unlink()
    if door is not None and door.port != PORT_INSIDE:
        usual.unlink(missing_ok=True)  # left by a server that was killed: nobody works in the directory
        usual.symlink_to(socket_name(door))


async def admit_readers(dsn: str, settings: DatabaseSettings, door: Door) -> None:
    """The login, as it must be, with the present password."""
    connection = await connect(dsn, application="signalkeep start", settings=settings)
    try:
        await connection.execute(f"{_ROLES} ALTER ROLE {LOGIN} PASSWORD '{door.verifier}'")
    finally:
        await connection.close(timeout=limits.DATABASE_CONNECT_S_MAX)


def scram_verifier(password: str, salt: bytes) -> str:
    """RFC 5803: what the server keeps instead of a password."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{shown[0]}${shown[1]}:{shown[2]}"


def _password(data: Path, settings: DatabaseSettings) -> str:
    file = password_file(data, settings)
    if settings.reader_password_file is None and not file.exists():
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(file, secrets.token_urlsafe(_PASSWORD_BYTES).encode() + b"\n")
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError(
            f"database.reader_password_file: {file} cannot be read: {getattr(error, 'strerror', None) or error}",
            hint=f"Make one: (umask 077; openssl rand -base64 24 > {file})",
        ) from error
    if mode & 0o007:
        raise CallerError(
            f"database.reader_password_file: {file} can be used by everybody (mode {stat.S_IMODE(mode):o})",
            hint=f"chmod 600 {file}; and change the password, if others may have read it",
        )
    password = text.strip("\r\n")
    if not password or not password.isascii() or not password.isprintable():
        what = "holds characters other than printable ASCII" if password else "is empty"
        raise CallerError(
            f"database.reader_password_file: {file} {what}",
            hint="Put the password on its only line, in ASCII.",
        )
    return password


def _probe(host: str, port: int) -> None:
    """PostgreSQL says only 'could not create any TCP/IP sockets': say it better, and before the start."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise EnvironmentFault(
            f"database.listen: the server cannot listen on {host}:{port}: {error.strerror}",
            hint="Choose a free port and an address of this machine, or leave database.listen empty.",
        ) from error


def _refuse_without_tls(programs: Path, directory: Path, account: Account) -> None:
    answer = account.run(programs / "postgres", "-D", directory, "-c", "ssl=on", "-C", "ssl")
    if answer.returncode != 0:
        raise CallerError(
            f"database.listen_certificate: the PostgreSQL in {programs} has no TLS built in",
            hint="Set database.bin_dir to the bin folder of a PostgreSQL of the system, which has, or let a proxy "
            "in front of database.listen do it.",
        )


def _copy_for(account: Account, source: Path, target: Path) -> Path:
    """PostgreSQL takes a key only if it belongs to its own account: give it a copy."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise CallerError(
            f"database.listen_certificate or listen_key: {source}: {error.strerror}",
            hint="Both files must be readable for the user that starts signalkeep.",
        ) from error
    target.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(target, content)
    if account.switch:
        os.chown(target.parent, account.uid, account.gid)
        os.chown(target, account.uid, account.gid)
    return target


def _rules(*, tls: bool) -> list[str]:
    kind = "hostssl" if tls else "host"
    return [
        BEGIN,
        f"host     all         {EMBEDDED_NAME}     all  reject",
        f"{kind:<8} {EMBEDDED_NAME}  {LOGIN}  all  scram-sha-256",
        "host     all         all            all  reject",
        "host     replication all            all  reject",
        END,
    ]


def _write_rules(directory: Path, account: Account, rules: list[str]) -> None:
    """Our block at the top of pg_hba.conf, where the first line that fits decides; or none."""
    file = directory / "pg_hba.conf"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = list(lines)
    with suppress(ValueError):
        kept = lines[: lines.index(BEGIN)] + lines[lines.index(END) + 1 :]
    if [*rules, *kept] == lines:
        return
    write_whole(file, "".join(f"{line}\n" for line in [*rules, *kept]).encode())
    if account.switch:
        os.chown(file, account.uid, account.gid)
    sync_path(directory)
