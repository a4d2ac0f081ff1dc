"""What every section is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from signalkeep import limits
from signalkeep.errors import SettingsError

Port = Annotated[int, Field(ge=0, le=limits.PORT_MAX)]


class Section(BaseModel):
    """A part of the tree; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def first_line(setting: str, file: Path, what: str) -> str:
    """A secret that stands in a file of its own. Raises SettingsError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(
            f"{setting}: {file}: {error.strerror}", hint="Make the file readable to this user."
        ) from error
    if not lines or not lines[0].strip():
        raise SettingsError(f"{setting}: {file} is empty", hint=f"Put the {what} on its first line.")
    return lines[0].strip()
