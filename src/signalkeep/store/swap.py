"""Puts another database directory in the place of the present one, in one step that a crash cannot halve.

    <data>/postgres/swap.json    what is to change places; written when the new directory is whole and synced

From the moment that file is there, the exchange is decided, and whoever holds the lock next finishes it: the command
that began it, a repetition of that command, or simply the next start. What was there before is moved aside and
kept; only people delete it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from signalkeep.errors import EnvironmentFault
from signalkeep.store.durable import sync_path, write_whole
from signalkeep.store.notes import Restored, note_restored


class Swap(msgspec.Struct, frozen=True):
    """Names are those of directories below <data>/postgres."""

    incoming: str
    major: int
    aside: dict[str, str]  # present name: the name it gets
    restored: Restored | None = None


def aside_name(major: str, now: datetime) -> str:
    """What a directory that was replaced is called; never taken for data of a server."""
    return f"replaced-{now:%Y%m%dT%H%M%SZ}-{major}"


def clusters(root: Path) -> list[Path]:
    """The database directories, one for each major version, oldest version first."""
    found = [path for path in root.glob("[0-9]*") if path.name.isdigit() and (path / "PG_VERSION").exists()]
    return sorted(found, key=lambda path: int(path.name))


def exchange(root: Path, swap: Swap) -> None:
    """Do it. The caller holds the lock, and no server runs."""
    write_whole(root / "swap.json", msgspec.json.encode(swap))
    finish(root)


def decided(root: Path) -> bool:
    """Whether an exchange is under way, which the next start will finish."""
    return (root / "swap.json").exists()


def finish(root: Path) -> Swap | None:
    """Finish an exchange that was decided, if there is one."""
    file = root / "swap.json"
    try:
        swap = msgspec.json.decode(file.read_bytes(), type=Swap)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise EnvironmentFault(
            f"{file} cannot be read: {error}",
            hint=f"A restore was interrupted and its note is damaged: run the restore again, or move {file} away.",
        ) from error
    incoming = root / swap.incoming
    if incoming.exists():  # else it stands in its place already
        for name, kept in swap.aside.items():
            if (root / name).exists():
                (root / name).rename(root / kept)
        sync_path(root)
        incoming.rename(root / str(swap.major))
        sync_path(root)
    if swap.restored is not None:
        note_restored(root.parent, swap.restored)
    file.unlink()
    sync_path(root)
    return swap
