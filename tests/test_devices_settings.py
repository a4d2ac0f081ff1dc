"""`[devices]`: limits of troubles for all devices and for models, and what cannot be set."""

from __future__ import annotations

from pathlib import Path

import pytest

from signalkeep.config import load
from signalkeep.errors import SettingsError
from signalkeep.rules.troubles import Trouble, defaults
from signalkeep.sections.devices import DevicesSettings


def test_limits_of_the_model_go_over_those_of_all() -> None:
    settings = DevicesSettings(
        troubles={"silent": {"intervals": 5, "after_s": 900}, "jamming": {"enabled": False}},
        models={"FMB920": {"silent": {"intervals": 7}, "jamming": {"enabled": True}, "flood": {"enabled": False}}},
    )
    usual, of_model = settings.limits_of(""), settings.limits_of("fmb920")
    assert usual[Trouble.SILENT] == defaults(Trouble.SILENT) | {"intervals": 5.0, "after_s": 900.0}
    assert of_model[Trouble.SILENT] == usual[Trouble.SILENT] | {"intervals": 7.0}
    assert (Trouble.JAMMING in usual, Trouble.JAMMING in of_model) == (False, True)
    assert (Trouble.FLOOD in usual, Trouble.FLOOD in of_model) == (True, False)


def test_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "SIGNALKEEP_DEVICES__TROUBLES__SILENT__AFTER_S": "1200", "SIGNALKEEP_DEVICES__GROUP__DEVICES": "9",
        "SIGNALKEEP_DEVICES__MODELS__FMB920__SILENT__ENABLED": "false", "SIGNALKEEP_DEVICES__EVERY_S": "5",
    }  # fmt: skip
    devices = load(tmp_path, environ=environ).devices
    assert devices.limits_of("")[Trouble.SILENT]["after_s"] == 1200
    assert Trouble.SILENT not in devices.limits_of("FMB920")
    assert (devices.group_limits["devices"], devices.group_limits["share"], devices.every_s) == (9, 0.5, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[devices.troubles.sulky]\nhits = 1", "devices.troubles.sulky: no such kind of trouble; there are silent, "),
        (
            "[devices.troubles.silent]\nhits = 1",
            "devices.troubles.silent.hits: no such limit; there are enabled, after",
        ),
        ("[devices.troubles.flood]\nhits = 0", "devices.troubles.flood.hits: this is no number from 1 to inf"),
        ('[devices.models.X.flood]\nhits = "many"', "devices.models.X.flood.hits: this is no number"),
        ('[devices.troubles.flood]\nenabled = "no"', "devices.troubles.flood.enabled: true or false"),
        ("[devices.group]\nshare = 2", "share: this is no number from 0 to 1"),
        ("[devices.group]\ncustomer = 2", "customer: no such limit; there are devices, fleet_share, share, within_s"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "signalkeep.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, environ={})
    assert said in raised.value.message
