"""The units for several machines: as hardened as the one for one, with time to stop, and commands that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from signalkeep import limits
from tests.deploy.support import accepts, loads

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
ROLES = ("gateway@", "relay", "ingest@", "organizer", "monitor")
GATEWAY_HOST, WORKER_HOST = "signalkeep-gateway-host.target", "signalkeep-worker-host.target"
PROGRAM = "/opt/signalkeep/bin/signalkeep"
ANALYZE = "/usr/bin/systemd-analyze"

Unit = dict[str, dict[str, list[str]]]
"""The values of each key, by section."""


def parsed(path: Path) -> Unit:
    """Raises AssertionError for what is no unit file in its plainest form."""
    unit: Unit = {}
    section: dict[str, list[str]] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if title := re.fullmatch(r"\[(Unit|Service|Install)\]", line):
            assert title[1] not in unit, line
            section = unit.setdefault(title[1], {})
            continue
        pair = re.fullmatch(r"(\w+)=(.*)", line)
        assert pair is not None, f"{path.name}: not understood: {line}"
        assert section is not None, f"{path.name}: in no section: {line}"
        section.setdefault(pair[1], []).append(pair[2])
    return unit


def service(role: str) -> Unit:
    return parsed(UNITS / f"signalkeep-{role}.service")


def one(unit: Unit, key: str, section: str = "Service") -> str:
    (value,) = unit[section][key]
    return value


@pytest.mark.parametrize("command", [["run", "--no-such-option"], ["no-such-command"], ["gateway", "--instance", "x"]])
def test_what_signalkeep_does_not_take_is_noticed(command: list[str]) -> None:
    with pytest.raises(AssertionError):
        accepts(command)


@pytest.mark.parametrize("fault", ["Restart always\n", "Restart=always\n", "[Unit]\n[Unit]\n", "[Service]\n  X=1\n"])
def test_what_is_no_unit_is_noticed(fault: str, tmp_path: Path) -> None:
    (tmp_path / "unit").write_text(fault, encoding="utf-8")
    with pytest.raises(AssertionError):
        parsed(tmp_path / "unit")


def test_every_unit_is_looked_at_here() -> None:
    services = {path.name for path in UNITS.glob("*.service")}
    assert services == {"signalkeep.service", *(f"signalkeep-{role}.service" for role in ROLES)}
    assert {path.name for path in UNITS.glob("*.target")} == {GATEWAY_HOST, WORKER_HOST}


@pytest.mark.parametrize("role", ROLES)
def test_each_is_as_hardened_as_the_unit_of_one_machine(role: str) -> None:
    text = (UNITS / "signalkeep.service").read_text(encoding="utf-8")
    hardening = re.search(r"^NoNewPrivileges=.*?^SystemCallFilter=.*?$", text, flags=re.MULTILINE | re.DOTALL)
    assert hardening is not None
    assert hardening[0].count("\n") > 15
    assert hardening[0] in (UNITS / f"signalkeep-{role}.service").read_text(encoding="utf-8")
    ours, theirs = service(role)["Service"], parsed(UNITS / "signalkeep.service")["Service"]
    for key in ("User", "Group", "UMask", "StateDirectory", "StateDirectoryMode", "EnvironmentFile"):
        assert ours[key] == theirs[key]


@pytest.mark.parametrize("role", ROLES)
def test_each_is_started_again_and_has_the_time_to_stop(role: str) -> None:
    unit = service(role)
    assert one(unit, "Restart") == "always"
    assert one(unit, "StartLimitIntervalSec", "Unit") == "0", "it would be given up after five starts"
    assert one(unit, "RestartPreventExitStatus") == "2", "of a wrong setting"
    assert float(one(unit, "TimeoutStopSec")) >= 3 * limits.STOP_GRACE_S, "as long as the supervisor waits for a role"
    assert one(unit, "Type") == "exec", "roles do not speak to the service manager: only `run` does"
    assert "WatchdogSec" not in unit["Service"]


def test_a_gateway_may_have_all_its_connections() -> None:
    assert int(one(service("gateway@"), "LimitNOFILE")) > limits.CONNECTIONS_MAX + limits.DESCRIPTORS_SPARE


@pytest.mark.parametrize("role", ROLES)
def test_its_command_and_its_settings_exist(role: str) -> None:
    unit = service(role)
    program, *command = one(unit, "ExecStart").replace("%i", "1").split()
    assert program == PROGRAM
    assert command[0] == role.removesuffix("@")
    accepts(command)
    settings = loads(dict(pair.split("=", 1) for pair in unit["Service"]["Environment"]))
    assert str(settings.data) == "/var/lib/signalkeep"
    assert str(settings.database.dsn_file) == "/etc/signalkeep/dsn"
    assert str(settings.broker.url_file) == "/etc/signalkeep/broker-url"


def test_targets_start_and_stop_what_belongs_to_them_and_gateways_go_first() -> None:
    alone = {GATEWAY_HOST: ("gateway@", "relay"), WORKER_HOST: ("ingest@", "organizer")}
    belongs = {role: [host] for host, roles in alone.items() for role in roles}
    for role in ROLES:
        wanted = belongs.get(role, [GATEWAY_HOST, WORKER_HOST])
        unit = service(role)
        assert one(unit, "WantedBy", "Install").split() == wanted
        assert one(unit, "PartOf", "Unit").split() == wanted
        assert one(unit, "Conflicts", "Unit") == "signalkeep.service", "both would work on one data directory"
    after = one(service("gateway@"), "After", "Unit").split()
    assert {"signalkeep-relay.service", "signalkeep-monitor.service"} <= set(after)
    assert "signalkeep-monitor.service" in one(service("relay"), "After", "Unit")
    for target in (GATEWAY_HOST, WORKER_HOST):
        assert one(parsed(UNITS / target), "WantedBy", "Install") == "multi-user.target"


@pytest.mark.skipif(not Path(ANALYZE).exists(), reason="NO SYSTEMD-ANALYZE, UNITS NOT VERIFIED")
def test_systemd_finds_no_fault_in_them(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "signalkeep"
    assert program.exists()
    for path in UNITS.iterdir():
        shutil.copy(path, tmp_path)
    names = []
    for path in tmp_path.iterdir():
        path.write_text(path.read_text(encoding="utf-8").replace(PROGRAM, str(program)), encoding="utf-8")
        if "@" in path.name:
            instance = path.rename(path.with_name(path.name.replace("@", "@1")))
            names.append(str(instance))
        else:
            names.append(str(path))
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *names], capture_output=True, text=True, check=False, timeout=60
    )
    about_us = [line for line in done.stderr.splitlines() if "signalkeep" in line]
    assert (done.returncode, about_us) == (0, []), done.stderr
