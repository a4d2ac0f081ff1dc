"""The compose files, as far as they can be checked without containers: what they name exists and fits together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from signalkeep import limits
from signalkeep.config import Settings
from tests.deploy.support import accepts, loads
from tests.deploy.yaml_subset import read

FOLDER: Final = Path(__file__).resolve().parents[2] / "deploy" / "compose"
ONE, BROKER, SEVERAL = "one-machine.yml", "one-machine.broker.yml", "several-machines.yml"
SETS: Final = {"one": [ONE], "one with a broker": [ONE, BROKER], "several": [SEVERAL]}
IMAGES: Final = {"signalkeep", "postgres:17", "rabbitmq:4-management"}
DATA: Final = "/var/lib/signalkeep"
ROLES_OF_RUN: Final = 5  # gateway, relay, ingest, monitor, supervisor
Document = dict[str, Any]


def merged(base: Any, over: Any) -> Any:
    """As compose puts files together, in what ours use: mappings by key, lists one behind the other."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base.get(key), value) for key, value in over.items()}
    return base + over if isinstance(base, list) and isinstance(over, list) else over


def documents() -> dict[str, Document]:
    found: dict[str, Document] = {}
    for name, files in SETS.items():
        whole: Document = {}
        for file in files:
            whole = merged(whole, read((FOLDER / file).read_text(encoding="utf-8")))
        found[name] = whole
    return found


DOCUMENTS: Final = documents()
SERVICES: Final = [(name, service) for name, document in DOCUMENTS.items() for service in document["services"]]
ROLES: Final = [(name, one) for name, one in SERVICES if DOCUMENTS[name]["services"][one]["image"] == "signalkeep"]
each_service = pytest.mark.parametrize(("name", "service"), SERVICES)
each_role = pytest.mark.parametrize(("name", "service"), ROLES)


def of(name: str, service: str) -> Document:
    found: Document = DOCUMENTS[name]["services"][service]
    return found


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None, text
    return int(match[1])


def volumes(service: Document) -> dict[str, str]:
    """Where what is mounted, by the place in the container."""
    return {target: source for source, target in (one.split(":")[:2] for one in service["volumes"])}


def secret_places(service: Document) -> dict[str, str]:
    """The secrets of a service by their places in its container."""
    return {
        one["target"] if isinstance(one, dict) else f"/run/secrets/{one}": one["source"]
        if isinstance(one, dict)
        else one
        for one in service["secrets"]
    }


def settings(service: Document) -> Settings:
    given = {key: str(value) for key, value in service["environment"].items()}
    return loads({"SIGNALKEEP_DATA": DATA} | given)


def test_all_files_are_looked_at() -> None:
    assert {path.name for path in FOLDER.glob("*.yml")} == {ONE, BROKER, SEVERAL}
    assert {service for name, service in SERVICES if name == "several"} == {
        "gateway", "relay", "ingest", "organizer", "monitor", "rabbitmq", "postgres",
    }  # fmt: skip


@each_service
def test_each_service_is_started_again_watched_and_given_time(name: str, service: str) -> None:
    found = of(name, service)
    assert found["image"] in IMAGES
    assert found["restart"] == "unless-stopped"
    assert seconds(found["stop_grace_period"]) >= 3 * limits.STOP_GRACE_S
    check = found["healthcheck"]
    assert check["test"][0] == "CMD"
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert seconds(check["start_period"]) >= limits.READY_S_MAX
    assert found["logging"]["options"].keys() == {"max-size", "max-file"}, "logs would fill the disk of the journals"


@each_service
def test_its_volumes_and_secrets_are_declared_and_its_data_are_on_a_disk(name: str, service: str) -> None:
    document, found = DOCUMENTS[name], of(name, service)
    for source in volumes(found).values():
        assert source in document["volumes"] or (FOLDER / source).is_file(), source
    assert set(secret_places(found).values()) <= document["secrets"].keys()
    for key, value in found.get("environment", {}).items():
        if key.endswith("_FILE"):
            assert value in secret_places(found), f"{key}: {value} is no secret of this service"
    homes = {
        "signalkeep": DATA,
        "postgres:17": "/var/lib/postgresql/data",
        "rabbitmq:4-management": "/var/lib/rabbitmq",
    }
    home = homes[found["image"]]
    assert volumes(found)[home] in document["volumes"]
    assert not any(home.startswith(place.split(":")[0]) for place in found.get("tmpfs", []))


@each_role
def test_each_role_is_a_command_with_settings_that_exist(name: str, service: str) -> None:
    found = of(name, service)
    accepts(found["command"])
    loaded = settings(found)
    assert str(loaded.data) in volumes(found)
    assert loaded.database.dsn_file is not None
    assert loaded.broker.enabled == (name != "one")
    assert not loaded.journal.allow_unsafe
    assert not loaded.database.allow_unsafe


@each_role
def test_each_role_has_few_rights_and_many_files(name: str, service: str) -> None:
    found = of(name, service)
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["read_only"] is True
    assert "privileged" not in found
    assert found["ulimits"]["nofile"] > limits.CONNECTIONS_MAX + limits.DESCRIPTORS_SPARE


@each_role
def test_the_health_of_a_role_is_what_the_monitor_says(name: str, service: str) -> None:
    found = of(name, service)
    code = found["healthcheck"]["test"][-1]
    compile(code, service, "exec")
    port, page = re.findall(r"http://127\.0\.0\.1:(\d+)/(\w+)", code)[0]
    assert int(port) == settings(found).monitor.port
    serves = found["command"][0] in {"run", "gateway"}
    assert page == ("readyz" if serves else "livez"), "where no gateway runs, nothing is ever ready"


@pytest.mark.parametrize("name", ["one", "one with a broker"])
def test_on_one_machine_devices_reach_every_port_and_nobody_else_the_monitor(name: str) -> None:
    found = of(name, "signalkeep")
    loaded = settings(found)
    wanted = {f"{port}:{port}" for port in loaded.gateway.ports.values()}
    wanted |= {f"{port}:{port}/udp" for port in loaded.gateway.served_udp().values()}
    assert set(found["ports"]) == wanted | {f"127.0.0.1:{loaded.monitor.port}:{loaded.monitor.port}"}
    assert loaded.monitor.host == "0.0.0.0"
    assert "ports" not in of(name, "postgres")
    assert seconds(found["stop_grace_period"]) >= ROLES_OF_RUN * 3 * limits.STOP_GRACE_S
    assert found["hostname"], "journals are known by the host that they are on"


def test_on_several_machines_the_monitor_is_not_open_and_roles_see_each_other() -> None:
    for name, service in ROLES:
        if name != "several":
            continue
        found = of(name, service)
        assert settings(found).monitor.host == "127.0.0.1"
        assert found["network_mode"] == "host"
        assert found["pid"] == "host", "a role knows whether another lives by its process id"
        assert found["profiles"]
    assert "--share-ports" in of("several", "gateway")["command"]
    assert "--instance" not in of("several", "gateway")["command"], "its pid tells one from the other"


def test_no_file_holds_a_secret() -> None:
    for path in FOLDER.iterdir():
        if not path.is_file() or path.suffix == ".sh":
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", text), path.name
        assert not re.search(r"(?i)(password|passwd|cookie|secret|pass)\w*[ \t]*[:=][ \t]*[^\s/.]", text), path.name
    ignored = (FOLDER.parents[1] / ".gitignore").read_text(encoding="utf-8").split()
    assert "/deploy/compose/secrets/" in ignored
    for document in DOCUMENTS.values():
        assert all(one["file"].startswith("./secrets/") for one in document["secrets"].values())


def test_the_secrets_that_are_made_are_those_that_are_used(tmp_path: Path) -> None:
    script = shutil.copy(FOLDER / "make-secrets.sh", tmp_path)
    command = ["/bin/sh", script, "db-1", "broker-1"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}
    wanted = {one["file"] for document in DOCUMENTS.values() for one in document["secrets"].values()}
    assert wanted == {f"./secrets/{name}" for name in made}
    stored = made["postgres_password"].strip()
    assert re.fullmatch(r"[0-9a-f]{48}", stored)
    assert made["dsn"] == f"postgresql://signalkeep:{stored}@db-1:5432/signalkeep\n"
    sent = re.findall(r"^default_pass = ([0-9a-f]{48})$", made["rabbitmq_user.conf"], flags=re.MULTILINE)
    assert made["broker_url"] == f"amqp://signalkeep:{sent[0]}@broker-1:5672/\n"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets" / "erlang_cookie").stat().st_mode & 0o777 == 0o400
    again = subprocess.run(command, check=False, capture_output=True, timeout=30)
    assert again.returncode == 1, "passwords that are in use would be lost"
    assert (tmp_path / "secrets" / "dsn").read_text(encoding="utf-8") == made["dsn"]


def test_rabbitmq_knows_the_keys_that_we_set() -> None:
    schemas = list(Path("/usr/lib/rabbitmq").glob("lib/*/plugins/rabbit-*/priv/schema/rabbit.schema"))
    if not schemas:
        pytest.skip("NO RABBITMQ, ITS CONFIGURATION NOT CHECKED")
    schema = schemas[0].read_text(encoding="utf-8")
    known = set(re.findall(r'\{mapping,\s*"([^"]+)"', schema))
    known |= {re.sub(r"\.nodes\.\$node$", ".nodes.1", key) for key in known}
    for name in ("rabbitmq.conf", "rabbitmq-cluster.conf"):
        lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
        keys = [line.split(" = ")[0] for line in lines if line and not line.startswith("#")]
        assert keys
        for key in keys:
            assert re.sub(r"\.nodes\.\d+$", ".nodes.1", key) in known, key
    assert {"default_user", "default_pass"} <= known


@pytest.mark.parametrize("files", SETS.values(), ids=SETS.keys())
def test_compose_itself_takes_the_files(files: list[str], tmp_path: Path) -> None:
    docker = shutil.which("docker")
    command = [docker or "docker", "compose"]
    if docker is None or subprocess.run([*command, "version"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("NO DOCKER COMPOSE, FILES ONLY READ BY OUR OWN READER")
    for file in files:
        command += ["-f", str(FOLDER / file)]
    done = subprocess.run([*command, "config", "--quiet"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
