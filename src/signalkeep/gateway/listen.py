"""Listening sockets: which options they have, what to tell a person when a port cannot be had, descriptors for all.

Options that are set here are inherited by the connections that come in: keep-alive probes notice a device that is gone
without a word, and the kernel's memory for answers is bounded. Several gateway processes share a port (SO_REUSEPORT),
so whoever must be alone probes it first.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from signalkeep import limits
from signalkeep.errors import AlreadyRunning, EnvironmentFault
from signalkeep.telemetry import get_logger

UDP_SUFFIX: Final = "/udp"  # of a protocol's name where its UDP port is meant

log = get_logger()


def tcp_sockets(name: str, host: str, port: int) -> list[socket.socket]:
    """Bound, not yet listening; one for each address that the host has. Raises EnvironmentFault."""
    return _sockets(name, host, port, socket.SOCK_STREAM)


def udp_sockets(name: str, host: str, port: int) -> list[socket.socket]:
    """The same for datagrams."""
    return _sockets(name + UDP_SUFFIX, host, port, socket.SOCK_DGRAM)


def probe_ports(host: str, ports: Mapping[str, int], udp_ports: Mapping[str, int] | None = None) -> None:
    """Raise AlreadyRunning if a port is taken. With SO_REUSEPORT a second gateway would share it without a word."""
    wanted = [(name, port, socket.SOCK_STREAM) for name, port in ports.items()]
    wanted += [(name + UDP_SUFFIX, port, socket.SOCK_DGRAM) for name, port in (udp_ports or {}).items()]
    for name, port, kind in wanted:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:  # else connections of a gateway that has just ended would be in the way
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise port_error(name, host, port, error) from error


def port_error(name: str, host: str, port: int, error: OSError) -> EnvironmentFault:
    """What to tell a person about a port that cannot be had."""
    place = f"{host} port {port} ({name})"
    table = "udp_ports" if name.endswith(UDP_SUFFIX) else "ports"
    value = f'{{"{name.removesuffix(UDP_SUFFIX)}": NUMBER}}'
    setting = f"set another with SIGNALKEEP_GATEWAY__{table.upper()}='{value}' or gateway.{table} in the settings file"
    if isinstance(error, PermissionError):
        return EnvironmentFault(f"not allowed to listen on {place}", hint=f"Use a port above 1023: {setting}.")
    if "in use" in str(error).lower():
        return AlreadyRunning(
            f"{place} is in use by another program", hint=f"Is signalkeep running already? Else {setting}."
        )
    return EnvironmentFault(f"cannot listen on {place}: {error.strerror or error}", hint="Check gateway.host.")


def allow_descriptors(connections_max: int) -> None:
    """Have the system let this process open as many sockets as it may have connections; say so if it does not."""
    wanted = connections_max + limits.DESCRIPTORS_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    for ceiling in (max(wanted, hard), hard):  # the first is for root only
        new = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, new), ceiling))
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        log.warning(
            "fewer connections than set are possible",
            connections_max=connections_max,
            descriptors=soft,
            hint="raise the limit of open files (ulimit -n, LimitNOFILE), or lower gateway.connections_max",
        )


def _sockets(name: str, host: str, port: int, kind: socket.SocketKind) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE):
            sock = socket.socket(family, kind)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                _set_stream_options(sock)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.DATAGRAM_RECEIVE_BUFFER_BYTES)
            number = port or made[0].getsockname()[1]  # every address gets the number that the first one was given
            sock.bind((address[0], number, *address[2:]))
    except OSError as error:
        for sock in made:
            sock.close()
        raise port_error(name, host, port, error) from error
    return made


def _set_stream_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.SEND_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", limits.KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", limits.KEEPALIVE_IDLE_S),  # the name that macOS has for it
        ("TCP_KEEPINTVL", limits.KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", limits.KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
