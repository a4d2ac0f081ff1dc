"""The picture in the documentation is made by the script that it names, from the roads of today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_picture_is_what_the_script_draws(tmp_path: Path) -> None:
    """Compared loosely: another machine may round a coordinate otherwise."""
    drawn, kept = tmp_path / "drive.svg", ROOT / "docs/images/drive.svg"
    subprocess.run([sys.executable, str(ROOT / "scripts/draw_drive.py"), str(drawn)], check=True)
    one, other = (ElementTree.fromstring(path.read_text(encoding="utf-8")) for path in (drawn, kept))
    assert [element.tag for element in one.iter()] == [element.tag for element in other.iter()]
    assert len(list(one.iter())) > 300
