"""Which reader a file gets: by the end of its name. Raises CallerError for a name that says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from signalkeep.errors import CallerError
from signalkeep.tracks import csv_file, gpx, nmea
from signalkeep.tracks.contract import Recording

READERS: Final = {
    ".gpx": gpx.readings,
    ".csv": csv_file.readings,
    ".nmea": nmea.readings,
    ".nma": nmea.readings,
    ".log": nmea.readings,
    ".txt": nmea.readings,
}


def readings(path: Path) -> Recording:
    """What a file holds, whatever its format."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise CallerError(f"{path}: no track, by its name", hint=f"It should end with one of {', '.join(READERS)}.")
    return reader(path)
