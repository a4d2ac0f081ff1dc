"""Settings: where each comes from, and every wrong one named at once, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.config import Settings, data_option, default_data_directory, load, origin, settings_file
from signalkeep.errors import SettingsError
from signalkeep.rulebook import Rulebook
from signalkeep.rules.catalogue import BY_ID

SECRET = "hunter2"
SCALARS = st.one_of(st.integers(-5, 10**6), st.text(max_size=8), st.booleans(), st.none(), st.lists(st.integers()))


def written(directory: Path, text: str, name: str = "signalkeep.toml") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def faults(directory: Path, **environ: str) -> list[str]:
    """The lines of the error; there must be one."""
    with pytest.raises(SettingsError) as caught:
        load(directory, environ={f"SIGNALKEEP_{name}": value for name, value in environ.items()})
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def test_without_a_word_everything_has_its_default_and_nothing_is_written(tmp_path: Path) -> None:
    found = load(tmp_path / "data", environ={})
    assert found.data == tmp_path / "data"
    assert found.unknown_devices == "quarantine"
    assert found.gateway.ports == {"teltonika": 5027, "json": 2006}
    assert found.journal.cap_bytes == limits.JOURNAL_CAP_BYTES
    assert found.embedded
    assert list(tmp_path.iterdir()) == []


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    written(tmp_path, "unknown_devices = 'register'\n[journal]\ncap_bytes = 1\nkeep_bytes = 2\n[log]\nlevel = 'error'")
    environ = {"SIGNALKEEP_JOURNAL__CAP_BYTES": "3", "SIGNALKEEP_LOG": '{"format": "json"}'}
    found = load(tmp_path, environ=environ)
    assert (found.journal.cap_bytes, found.journal.keep_bytes) == (3, 2)
    assert (found.unknown_devices, found.log.level, found.log.format) == ("register", "error", "json")
    assert found.journal.segment_bytes == limits.SEGMENT_BYTES


def test_only_the_environment_that_is_given_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALKEEP_LOG__LEVEL", "error")
    monkeypatch.setenv("SIGNALKEEP_JURNAL__CAP_BYTES", "1")
    assert load(tmp_path, environ={}).log.level == "info"
    monkeypatch.delenv("SIGNALKEEP_JURNAL__CAP_BYTES")
    assert load(tmp_path).log.level == "error"


def test_every_fault_is_named_at_once_with_its_place(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "data = '/elsewhere'\nunknown_devices = 'maybe'\n[gateway]\nidle_s = -1\n[gateway.ports]\nmodbus = 1\n"
        "[journal]\nsegmnt_bytes = 1\n[nonsense]\nx = 1",
    )
    found = faults(
        tmp_path, INGEST__BATCH_FRAMES="0", JOURNAL__CAP_BITES="1", GATEWY__HOST="x", UNKNOWN_DEVICES__X="register"
    )
    assert [line.rpartition(": ")[0] for line in sorted(found)] == [
        f"{file}: data: the data directory is chosen by --data or SIGNALKEEP_DATA, not in the file".rpartition(": ")[0],
        f"{file}: gateway.idle_s",
        f"{file}: gateway.ports.modbus",
        f"{file}: journal.segmnt_bytes",
        f"{file}: nonsense",
        f"{file}: unknown_devices",
        "environment SIGNALKEEP_GATEWY__HOST",
        "environment SIGNALKEEP_INGEST__BATCH_FRAMES: ingest.batch_frames",
        "environment SIGNALKEEP_JOURNAL__CAP_BITES: journal.cap_bites",
        "environment SIGNALKEEP_UNKNOWN_DEVICES__X",
    ]
    assert any("found 'maybe'" in line for line in found)
    assert sum("no such setting" in line for line in found) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JURNAL__CAP_BYTES", "1"),
        ("JOURNAL_CAP_BYTES", "1"),
        ("JOURNAL__CAP", "1"),
        ("DATA__X", "1"),
        ("LOG__LEVEL__X", "1"),
        ("JOURNAL", "5"),
        ("", "1"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused(tmp_path: Path, name: str, value: str) -> None:
    (fault,) = faults(tmp_path, **{name: value})
    assert fault.startswith("environment SIGNALKEEP_")


def test_the_case_of_a_variable_does_not_matter_and_misspelt_it_is_refused_all_the_same(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"signalkeep_journal__cap_bytes": "3"}).journal.cap_bytes == 3
    with pytest.raises(SettingsError, match="jurnal"):
        load(tmp_path, environ={"signalkeep_jurnal__cap_bytes": "3"})


def test_a_port_of_a_protocol_that_there_is_not_is_named_beside_other_faults(tmp_path: Path) -> None:
    found = faults(tmp_path, GATEWAY__PORTS=json.dumps({"jsn": 1, "json": 70_000}))
    assert [line.split(": ")[:2] for line in found] == [
        ["environment SIGNALKEEP_GATEWAY__PORTS__JSON", "gateway.ports.json"],
        ["environment SIGNALKEEP_GATEWAY__PORTS__JSN", "gateway.ports.jsn"],
    ]
    assert "there are json, teltonika" in found[1]


def test_which_file_is_read(tmp_path: Path) -> None:
    usual, other = written(tmp_path, "[log]\nlevel = 'error'"), written(tmp_path, "[log]\nlevel = 'debug'", "other")
    environ = {"SIGNALKEEP_CONFIG": str(other)}
    assert settings_file(tmp_path, None, {}) == usual
    assert settings_file(tmp_path, usual, environ) == usual, "the argument comes before the environment"
    assert settings_file(tmp_path / "new", None, {}) is None
    assert load(tmp_path, environ={}).log.level == "error"
    assert load(tmp_path, environ=environ).log.level == "debug"
    assert load(tmp_path, usual, environ).log.level == "error"
    with pytest.raises(SettingsError, match="gone"):
        load(tmp_path, tmp_path / "gone", {})


@pytest.mark.parametrize("content", [b"x", b"\xff", b"[a]\n[a]"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "signalkeep.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"signalkeep\.toml.*TOML"):
        load(tmp_path, environ={})


def test_where_the_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"SIGNALKEEP_DATA": "there"}
    assert load(environ=environ).data == tmp_path / "there"
    assert load(Path("here"), environ=environ).data == tmp_path / "here"
    assert data_option(load(Path("a b"), environ={})) == f" --data '{tmp_path}/a b'"
    assert data_option(Settings.model_validate({"data": default_data_directory()})) == ""


def test_the_dsn_stands_in_the_settings_or_in_a_file_of_its_own(tmp_path: Path) -> None:
    dsn = f"postgresql://me:{SECRET}@h/x"
    secret = written(tmp_path, f"{dsn}\nanything else\n", "secret")
    found = load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN_FILE": str(secret)})
    assert found.database.resolved_dsn() == dsn
    assert not found.embedded
    assert SECRET not in repr(found), "it is read when it is needed"
    assert load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN": dsn}).database.resolved_dsn() == dsn
    (fault,) = faults(tmp_path, DATABASE__DSN=dsn, DATABASE__DSN_FILE=str(secret))
    assert "not both" in fault
    assert SECRET not in fault


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), ("", "empty"), ("\nx", "empty"), ("  \n", "empty")]
)
def test_a_dsn_file_of_no_use_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    found = load(tmp_path, environ={"SIGNALKEEP_DATABASE__DSN_FILE": str(file)})
    with pytest.raises(SettingsError, match=f"database.dsn_file: .*secret.*{said}"):
        found.database.resolved_dsn()


def test_a_secret_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    written(tmp_path, f"[database]\ndns = 'postgresql://me:{SECRET}@h/x'\ndsn = ['postgresql://me:{SECRET}@h/x']")
    found = faults(tmp_path, LOG__LEVEL=f"postgresql://me:{SECRET}@h/x")
    assert len(found) == 3
    assert not any(SECRET in line for line in found)


def test_the_origin_of_a_setting() -> None:
    environ = {"SIGNALKEEP_JOURNAL__CAP_BYTES": "1"}
    values = {"journal": {"cap_bytes": 2, "keep_bytes": 3}}
    assert origin(("journal", "cap_bytes"), environ, values) == "environment"
    assert origin(("journal", "keep_bytes"), environ, values) == "file"
    assert origin(("journal", "segment_bytes"), environ, values) == "default"
    assert origin(("unknown_devices",), environ, values) == "default"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["journal", "journal__cap_bytes", "gateway__ports", "gateway", "log__level", "database__dsn"]),
        SCALARS | st.dictionaries(st.sampled_from(["json", "cap_bytes", "level", "x"]), SCALARS),
    )
)
def test_whatever_the_environment_says_the_answer_is_settings_or_a_settings_error(
    tmp_path: Path, values: dict[str, object]
) -> None:
    environ = {f"SIGNALKEEP_{name.upper()}": json.dumps(value) for name, value in values.items()}
    said = "environment"
    try:
        load(tmp_path, environ=environ)
    except SettingsError as error:
        said = error.message
    assert "environment" in said


@pytest.mark.parametrize(
    "listen", ["5433", ":5433", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "a b:1", "a,b:1", "::1:5"]
)
def test_an_address_that_is_none_is_refused_in_plain_words(tmp_path: Path, listen: str) -> None:
    with pytest.raises(SettingsError, match=r"such as 127\.0\.0\.1:5433"):
        load(tmp_path, environ={"SIGNALKEEP_DATABASE__LISTEN": listen})


@pytest.mark.parametrize("listen", ["127.0.0.1:5433", "[::1]:5433", "localhost:1", "*:65535", ""])
def test_an_address_to_listen_on(tmp_path: Path, listen: str) -> None:
    assert load(tmp_path, environ={"SIGNALKEEP_DATABASE__LISTEN": listen}).database.listen == listen


# Data quality


def test_limits_of_rules_come_from_the_file_and_single_ones_from_the_environment(tmp_path: Path) -> None:
    """In any case: variables lose theirs, and no shell can spell a model's name in capitals for us."""
    written(
        tmp_path,
        "[quality.rules.KIN-01]\nspeed_kmh_max = 180\ndistance_m = 50\n[quality.rules.pos-01]\nenabled = false\n"
        "[quality.models.FMB920.KIN-01]\nspeed_kmh_max = 130\n[quality.customers.'Acme Inc.'.KIN-05]\nenabled = false\n"
        "[[quality.own]]\nid = 'OWN-01'\ntitle = 'Fast'\nwhen = 'speed_kmh > 90'",
    )
    environ = {
        "SIGNALKEEP_QUALITY__RULES__KIN-01__SPEED_KMH_MAX": "150", "signalkeep_quality__sample_days": "3",
        "SIGNALKEEP_QUALITY__MODELS__FMB920__KIN-01__SPEED_KMH_MAX": "120",
    }  # fmt: skip
    found = load(tmp_path, environ=environ).quality
    assert found.rules == {"KIN-01": {"speed_kmh_max": "150", "distance_m": 50}, "POS-01": {"enabled": False}}
    assert found.customers == {"Acme Inc.": {"KIN-05": {"enabled": False}}}
    assert (found.sample_days, found.own[0].when) == (3, "speed_kmh > 90")
    book = Rulebook(found)
    assert book.limits_of(BY_ID["KIN-01"], "", "") == {"speed_kmh_max": 150.0, "distance_m": 50.0}
    assert book.limits_of(BY_ID["KIN-01"], "FMB920", "") == {"speed_kmh_max": 120.0, "distance_m": 50.0}


@pytest.mark.parametrize("name", ["QUALITY__RULES__KIN-01__ENABLED", "quality__rules__kin-01__enabled"])
def test_a_rule_is_switched_off_by_a_variable(tmp_path: Path, name: str) -> None:
    found = load(tmp_path, environ={f"SIGNALKEEP_{name}": "false"}).quality
    assert Rulebook(found).limits_of(BY_ID["KIN-01"], "", "") is None


def test_every_fault_of_a_rule_is_named_with_its_place(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "[quality.rules.KIN-01]\nspeed_kmh = 180\nspeed_kmh_max = 0\n[quality.models.FMB920.kin-01]\nenabled = 7\n"
        "[quality.customers.Acme.KIN-05]\nspeed_kmh_max = 'fast'\n[[quality.own]]\nid = 'own-1'\ntitle = 'x'\n"
        "when = 'a.b'",
    )
    found = faults(
        tmp_path,
        **{
            "QUALITY__RULES__KIN-01__DISTANCE_M": "far", "QUALITY__MODELS__FMB920__KIN-05__SPEED_KMH_MAX": "-1",
            "QUALITY__RULES__KIN-02": "5", "QUALITY__SWEEP_EVERY": "1",
        },
    )  # fmt: skip
    assert [line.split(": ")[:2] for line in sorted(found)] == [
        [str(file), "quality.customers.Acme.KIN-05.speed_kmh_max"],
        [str(file), "quality.models.FMB920.kin-01.enabled"],
        [str(file), "quality.own.0.id"],
        [str(file), "quality.own.0.when"],
        ["environment SIGNALKEEP_QUALITY__MODELS__FMB920__KIN-05__SPEED_KMH_MAX",
         "quality.models.fmb920.kin-05.speed_kmh_max"],
        ["environment SIGNALKEEP_QUALITY__RULES__KIN-02", "quality.rules.kin-02"],
        ["environment SIGNALKEEP_QUALITY__SWEEP_EVERY", "quality.sweep_every"],
    ]  # fmt: skip
    assert any("a.b' at character 1" in line for line in found)
    values = faults(tmp_path, **{"QUALITY__RULES__KIN-01__DISTANCE_M": "far"})
    assert [line.split(": ")[:2] for line in sorted(values) if "quality.rules" in line] == [
        [str(file), "quality.rules.KIN-01.speed_kmh"],
        [str(file), "quality.rules.KIN-01.speed_kmh_max"],
        ["environment SIGNALKEEP_QUALITY__RULES__KIN-01__DISTANCE_M", "quality.rules.kin-01.distance_m"],
    ]
    assert sum("no such limit; there are enabled, speed_kmh_max, distance_m" in line for line in values) == 1
    assert sum("found 'far'" in line for line in values) == 1


@pytest.mark.parametrize(
    ("own", "path", "said"),
    [
        ([{"id": "OWN-01", "title": "x"}], "quality.own.0.when", "required"),
        ([{"id": "OWN-01", "title": "x", "when": "speed_kmh >"}], "quality.own.0.when", "at character 12"),
        ([{"id": "OWN-01", "title": "x", "when": "true", "fors": 1}], "quality.own.0.fors", "no such setting"),
        ([{"id": "KIN-01", "title": "x", "when": "true"}], "quality", "KIN-01 is the id of another rule"),
        ([{"id": "OWN-01", "title": "x", "when": "true"}] * 2, "quality", "OWN-01 is the id of another rule"),
        ([{"id": "OWN-01", "title": "x", "when": "true", "severity": "fatal"}], "quality.own.0.severity", "warning"),
        (
            [{"id": "OWN-01", "title": "x", "when": "true", "error_type": 10**11}],
            "quality.own.0.error_type",
            "less than",
        ),
    ],
)
def test_a_rule_of_users_that_cannot_be_used_is_named(tmp_path: Path, own: object, path: str, said: str) -> None:
    (fault,) = faults(tmp_path, QUALITY__OWN=json.dumps(own))
    assert fault.startswith(("environment SIGNALKEEP_QUALITY__OWN: ", "environment SIGNALKEEP_QUALITY: "))
    assert f": {path}: " in fault
    assert said in fault
