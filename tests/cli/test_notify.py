"""`notify channels`, `test`, `list`; settings of channels, and that nothing secret of them is seen anywhere."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path

import apprise
import pytest

from signalkeep.clock import SystemClock
from signalkeep.config import load
from signalkeep.errors import SettingsError
from signalkeep.notify.channels import channels_of, without_secrets
from signalkeep.notify.messages import trial
from tests.builders import ask
from tests.cli.commands import Commands
from tests.notify.receivers import SECRET, Webhook
from tests.notify.support import NOON

PASSWORD = "hunter2%40x"
MAIL = f"mailto://anna:{PASSWORD}@127.0.0.1:9/?from=a@example.com&to=b@example.com&mode=insecure"
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops"


def settings_of(tmp_path: Path, text: str) -> str:
    """What is said of wrong settings."""
    (tmp_path / "signalkeep.toml").write_text(text)
    with pytest.raises(SettingsError) as wrong:
        load(tmp_path, environ={})
    return wrong.value.message


def test_every_fault_is_named_at_once_and_no_secret_in_it(tmp_path: Path) -> None:
    said = settings_of(
        tmp_path,
        f"""
        [notify]
        admins = ["ops", "gone"]
        escalate_to = ["nobody"]
        customers = {{ Acme = ["acme"] }}
        [notify.channels.Ops]
        webhook = "https://example.com/{SECRET}"
        """,
    )
    parts = (
        "admins: there is no channel 'ops'",
        "'gone'",
        "'nobody'",
        "Acme: there is no channel 'acme'",
        "s.Ops: a ch",
    )
    for part in parts:
        assert part in said, said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("channel", "part"),
    [
        ("", "give one of apprise, apprise_file and webhook"),
        (f'webhook = "http://x/{SECRET}"\napprise = "json://x"', "give one of"),
        (f'webhook = "ftp://{SECRET}@x"', "must begin with http"),
        (f'apprise = "{SECRET}"', "must be an address"),
        (f'apprise = "json://x"\nsecret = "{SECRET}"', "signs what a webhook gets"),
        (f'webhook = "http://x"\nsecret = "{SECRET}"\nsecret_file = "/x"', "not both"),
        (f'webhook = "http://x"\nsecrt = "{SECRET}"', "no such setting"),
        (f'webhook = ["{SECRET}"]', "webhook"),
        ('webhook = "http://x"\ntimeout_s = 0', "greater than 0"),
    ],
)
def test_a_channel_that_makes_no_sense(tmp_path: Path, channel: str, part: str) -> None:
    said = settings_of(tmp_path, f'[notify]\nadmins = ["ops"]\n[notify.channels.ops]\n{channel}\n')
    assert part in said
    assert SECRET not in said


def test_somebody_must_be_told(tmp_path: Path) -> None:
    assert "somebody must be told" in settings_of(tmp_path, '[notify.channels.ops]\nwebhook = "http://x"\n')


@pytest.mark.servers
def test_config_show_masks_addresses(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    channels = {
        "mail": {"apprise": MAIL}, "chat": {"apprise": SLACK},
        "hook": {"webhook": f"https://example.com/{SECRET}", "secret": SECRET},
        "file": {"webhook": "https://example.com/x", "secret_file": str(file)},
    }  # fmt: skip
    commands = Commands(dsn, tmp_path, NOTIFY__CHANNELS=json.dumps(channels), NOTIFY__ADMINS='["mail"]')
    for options in ((), ("--origin",), ("--json",), ("--json", "--origin")):
        text = commands("config", "show", *options)
        for secret in (PASSWORD, SECRET, "anna", "TIiajkdnlazkcOXrIdevi7FQ"):
            assert secret not in text, options
        assert "mailto://********" in text
    text = commands("notify", "channels")
    assert SECRET not in text
    assert PASSWORD not in text
    assert "webhook (https)" in text
    assert SECRET not in repr(load(tmp_path, environ={"SIGNALKEEP_NOTIFY__CHANNELS": json.dumps(channels),
                                                      "SIGNALKEEP_NOTIFY__ADMINS": '["mail"]'}))  # fmt: skip


@pytest.mark.parametrize("address", [MAIL, SLACK, "json://anna:hunter2%40x@127.0.0.1:9/TIiajkdnlazkcOXrIdevi7FQ"])
async def test_what_went_wrong_is_said_without_secrets(
    tmp_path: Path, address: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Apprise itself, to ports where nobody listens and over a proxy that is none."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    environ = {"SIGNALKEEP_NOTIFY__CHANNELS": json.dumps({"ops": {"apprise": address}}),
               "SIGNALKEEP_NOTIFY__ADMINS": '["ops"]'}  # fmt: skip
    channel = channels_of(load(tmp_path, environ=environ).notify, SystemClock())["ops"]
    outcome = await channel.send(trial("ops", uuid.uuid4(), NOON, "host7"))
    assert outcome.error
    everything = outcome.error + "".join(capfd.readouterr())
    for secret in ("hunter2", "anna", "TIiajkdnlazkcOXrIdevi7FQ", "A1BRTD4JD"):
        assert secret not in everything, everything


def test_pieces_of_an_address_are_masked_however_they_are_written() -> None:
    text = "Cannot log in as anna with hunter2@x (hunter2%40x) at http://127.0.0.1:9/path?token=abc"
    shown = without_secrets(text, MAIL)
    assert shown == "Cannot log in as ******** with ******** (********) at http://********"


@pytest.mark.servers
def test_a_test_says_what_came_of_each_and_is_noted(dsn: str, tmp_path: Path) -> None:
    with Webhook() as hook:
        channels = {"good": hook.settings, "bad": {"webhook": "http://127.0.0.1:9/"}}
        commands = Commands(dsn, tmp_path, NOTIFY__CHANNELS=json.dumps(channels), NOTIFY__ADMINS='["good", "bad"]')
        rows = {row["channel"]: row for row in commands.json("notify", "test", expect=1)}
        assert (rows["good"]["result"], rows["good"]["ok"], rows["bad"]["ok"]) == ("taken", True, False)
        assert "Connection refused" in rows["bad"]["result"]
        assert [message["id"] for message in hook.got] == [rows["good"]["id"]]
        assert "taken" in commands("notify", "test", "good")
        assert "good, bad" in commands.refused("notify", "test", "other")
    listed = commands.json("notify", "list")
    assert sorted((row["channel"], row["what"], row["state"]) for row in listed) == [
        ("bad", "test", "given_up"), ("good", "test", "sent"), ("good", "test", "sent"),
    ]  # fmt: skip
    assert len(commands.json("notify", "list", "--channel", "bad")) == 1
    known = {row["name"]: row for row in commands.json("notify", "channels")}
    assert (known["bad"]["failed_in_a_row"], known["good"]["failed_in_a_row"]) == (1, 0)
    assert known["good"]["tells"] == "admins"
    assert len(ask(dsn, "SELECT FROM notification WHERE state = 'waiting'")) == 0


def test_a_test_needs_no_database(tmp_path: Path) -> None:
    with Webhook() as hook:
        commands = Commands(
            "postgresql://x@127.0.0.1:9/x", tmp_path, NOTIFY__CHANNELS=json.dumps({"ops": hook.settings}),
            NOTIFY__ADMINS='["ops"]',
        )  # fmt: skip
        done = commands.result("notify", "test")
        assert (done.exit_code, len(hook.got)) == (0, 1)
        assert "not noted among the messages" in done.stderr


@pytest.mark.servers
def test_without_channels(dsn: str, tmp_path: Path) -> None:
    commands = Commands(dsn, tmp_path)
    assert "there are no channels" in commands.refused("notify", "test")
    assert commands.json("notify", "channels") == []
    assert commands.json("notify", "list") == []


class Logged(logging.Handler):
    """Keeps what reaches the log of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def test_what_a_service_says_of_its_address_reaches_neither_log_nor_message(tmp_path: Path) -> None:
    """A service of Apprise that quotes all it knows, as some do."""
    address = "leaky://anna:hunter2@host7/TIiajkdnlazkcOXrIdevi7FQ"

    @apprise.decorators.notify(on="leaky")  # type: ignore[no-untyped-call, untyped-decorator]  # it has no annotations
    def send(*_: object, **__: object) -> bool:
        logging.getLogger("apprise").warning("401 of anna at https://host7/TIiajkdnlazkcOXrIdevi7FQ with hunter2")
        return False

    environ = {"SIGNALKEEP_NOTIFY__CHANNELS": json.dumps({"ops": {"apprise": address}}),
               "SIGNALKEEP_NOTIFY__ADMINS": '["ops"]'}  # fmt: skip
    settings = load(tmp_path, environ=environ)
    logged = Logged()
    logging.getLogger().addHandler(logged)
    try:
        outcome = await channels_of(settings.notify, SystemClock())["ops"].send(
            trial("ops", uuid.uuid4(), NOON, "host7")
        )
    finally:
        logging.getLogger().removeHandler(logged)
    assert outcome.error.startswith("401 of ******** at https://******** with ********; ")
    assert logged.messages == []
