"""When certificates end: those that trustme makes, and files that are none."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from signalkeep import limits
from signalkeep.config import load
from signalkeep.monitor.certificates import certificates, end_of, ends_of, look

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def certificate(path: Path, ends: datetime) -> Path:
    issued = trustme.CA().issue_cert("localhost", not_after=ends)
    path.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(path.with_suffix(".key")))
    return path


@pytest.mark.parametrize(
    ("left", "state", "said"),
    [
        (timedelta(seconds=limits.CERTIFICATE_S_MIN + 60), "up", ""),
        (timedelta(seconds=limits.CERTIFICATE_S_MIN - 60), "degraded", "in 14 days"),
        (timedelta(seconds=-60), "down", "has ended on 2026-11-01 11:59 UTC"),
        (timedelta(days=30 * 365), "up", ""),
    ],
)
def test_a_certificate_is_named_before_it_ends(tmp_path: Path, left: timedelta, state: str, said: str) -> None:
    path = certificate(tmp_path / "ours.pem", NOW + left)
    assert ends_of(path.read_text(encoding="ascii"))[0] == NOW + left
    settings = load(
        tmp_path,
        environ={
            "SIGNALKEEP_GATEWAY__TLS__PORTS": '["json"]',
            "SIGNALKEEP_GATEWAY__TLS__CERTIFICATE": str(path),
            "SIGNALKEEP_GATEWAY__TLS__KEY": str(path.with_suffix(".key")),
        },
    )
    (seen,) = look(settings, NOW)
    assert (seen.name, seen.state) == ("certificate gateway.tls.certificate", state)
    assert said in seen.why


def test_those_of_the_database_count_and_those_that_nobody_serves_do_not(tmp_path: Path) -> None:
    environ = {
        "SIGNALKEEP_GATEWAY__TLS__CERTIFICATE": "a.pem", "SIGNALKEEP_GATEWAY__TLS__KEY": "a.key",
        "SIGNALKEEP_DATABASE__LISTEN_CERTIFICATE": "b.pem", "SIGNALKEEP_DATABASE__LISTEN_KEY": "b.key",
    }  # fmt: skip
    assert certificates(load(tmp_path, environ=environ)) == {}
    listening = load(tmp_path, environ={**environ, "SIGNALKEEP_DATABASE__LISTEN": "127.0.0.1:5433"})
    assert certificates(listening) == {"database.listen_certificate": Path("b.pem")}
    (seen,) = look(listening, NOW)
    assert (seen.state, "cannot be read" in seen.why) == ("degraded", True)
    (tmp_path / "c.pem").write_text("nothing of that kind")
    other = load(
        tmp_path,
        environ={
            **environ,
            "SIGNALKEEP_DATABASE__LISTEN": "127.0.0.1:5433",
            "SIGNALKEEP_DATABASE__LISTEN_CERTIFICATE": str(tmp_path / "c.pem"),
        },
    )
    (seen,) = look(other, NOW)
    assert (seen.state, "no certificate" in seen.why) == ("degraded", True)


def test_whatever_the_bytes_are_the_answer_is_a_time_or_a_value_error(tmp_path: Path) -> None:
    path = certificate(tmp_path / "ours.pem", NOW)
    der = ssl.PEM_cert_to_DER_cert(
        path.read_text(encoding="ascii").partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    )
    assert end_of(der) == NOW
    assert end_of(der.replace(b"261101120000Z", b"991101120000Z")) == NOW.replace(year=1999)
    for length in range(0, len(der), 7):
        with pytest.raises(ValueError):
            end_of(der[:length])
    for place in range(300):
        broken = bytearray(der)
        broken[place] ^= 0xFF
        try:
            end_of(bytes(broken))
        except ValueError:
            continue
    with pytest.raises(ValueError):
        end_of(bytes(100))
