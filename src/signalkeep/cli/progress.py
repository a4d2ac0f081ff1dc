"""How far long work is: a bar on a terminal, else a line now and then. Always on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from signalkeep.cli.common import err

LINE_EVERY: Final = 10_000


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function to be told how much is done, of `total` if that is known. `what`: as in "records tried"."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    said = 0
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=total)

        def tell(done: int) -> None:
            nonlocal said
            progress.update(task, completed=done)
            if not err.is_terminal and done - said >= LINE_EVERY:
                said = done
                err.print(f"{done} {what} ...")

        yield tell
