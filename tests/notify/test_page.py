"""The page of incidents lists what there is: kinds, settings, words of messages."""

from __future__ import annotations

import re
from pathlib import Path

from signalkeep.config import load
from signalkeep.notify.decide import Word
from signalkeep.sections.notify import ChannelSettings, NotifySettings
from tests.notify.page import PAGE, page

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_kinds_of_the_page_are_those_that_there_are() -> None:
    assert page(TEXT) == TEXT, "run `python -m tests.notify.page`"


def test_every_setting_and_every_word_is_explained() -> None:
    names = [*ChannelSettings.model_fields, *NotifySettings.model_fields, *Word, "digest", "test"]
    missing = [name for name in names if name not in TEXT]
    assert not missing


def test_the_settings_of_the_page_can_be_used(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "signalkeep.toml").write_text(example)
    found = load(tmp_path, environ={}).notify
    assert set(found.channels) == {"ops", "pager", "acme-mail", "boss"}
    usual = NotifySettings()
    for name in ("escalate_after_s", "remind_every_s", "min_severity"):
        assert getattr(found, name) == getattr(usual, name), "the page shows defaults"
