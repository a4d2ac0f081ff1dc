"""The blocking half of the writer: puts batches into segment files and syncs them. One thread at a time uses it, but
that `prepare_next` in advance may run beside the others.

Order is everything here, and each step relies on the one before:
  1. a batch is written only after the sync of the batch before it has returned;
  2. a seal is written only at such a moment too, where the next batch will go, and needs no sync of its own;
  3. a segment gets its name only after its header is synced, and is used only after that name is synced.
A batch for which there is no room leaves no trace: its numbers and its place go to the next one. After a failed sync
nothing is ever written or synced again, except a seal over the batch whose fate is unknown, so that no reader on this
machine takes it for durable; nobody was told that it is.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from signalkeep.clock import Clock
from signalkeep.errors import DiskFull, SyncFailed
from signalkeep.journal.files import FileSystem, write_all
from signalkeep.journal.record import (
    BATCH_HEADER_BYTES,
    SALT_BYTES,
    BatchHeader,
    SegmentHeader,
    blocks_bytes,
    pack_batch,
    pack_segment_header,
    unpack_segment_header,
)
from signalkeep.journal.segments import NEXT_SEGMENT, segment_name
from signalkeep.limits import JOURNAL_BLOCK_BYTES, SEGMENT_FILL_BYTES

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
ZEROS: Final = memoryview(bytes(SEGMENT_FILL_BYTES))
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Appender:
    """The files of one journal. Raises DiskFull (nothing has changed, try again later) or SyncFailed (never again)."""

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        journal_id: UUID,
        *,
        clock: Clock,
        salt: Callable[[int], bytes],
        lanes: int,
        segment_bytes: int,
    ) -> None:
        self.directory = directory
        self.next_seq = 1
        self.bytes_used = 0
        self._fs = fs
        self._journal_id = journal_id
        self._clock = clock
        self._salt = salt
        self._lanes = lanes
        self._segment_bytes = segment_bytes
        self._file: int | None = None
        self._next_file: int | None = None
        self._offset = segment_bytes  # where the next batch goes; at first there is no segment for it
        self._chain = 0
        self._seed = 0
        self._may_prepare = True
        self.sealed = True  # readers know that everything so far is synced

    @property
    def wants_next(self) -> bool:
        """Whether it is time to prepare the next segment: the present one is more than half full.

        Tried once ahead of time; if there was no room, it is tried again when the segment is needed.
        """
        return self._next_file is None and self._may_prepare and self._offset > self._segment_bytes // 2

    def prepare_next(self, *, in_advance: bool = False) -> None:
        """Give the next segment its space, under a name that no reader looks at.

        In advance, beside `append` and `seal`, there is time to write it full of zeros as well: over space that is
        merely reserved, every sync also has to write down in the file system's own log that it is used now, and so
        waits for whatever else is being written there, a checkpoint of the database for one.
        """
        path = self.directory / NEXT_SEGMENT
        self._may_prepare = False
        try:
            file = self._fs.open_new(path)
            try:
                self._fs.allocate(file, self._segment_bytes)
                if in_advance:
                    self._fill(file)
            except OSError:
                self._fs.close(file)
                self._fs.unlink(path)
                raise
        except OSError as error:
            raise _fault(error) from error
        self._fs.sync(file)
        self.bytes_used += self._segment_bytes
        self._next_file = file  # at the very end: from now on `start_segment` may take it

    def _fill(self, file: int) -> None:
        """Write zeros, piece by piece, so that nobody's sync waits behind all of them."""
        for offset in range(0, self._segment_bytes, SEGMENT_FILL_BYTES):
            write_all(self._fs, file, ZEROS[: self._segment_bytes - offset], offset)
            self._fs.datasync(file)

    def start_segment(self) -> None:
        """Go over to the next segment. Everything in the present one is synced."""
        if self._next_file is None:
            self.prepare_next()
        file = self._next_file
        assert file is not None
        block = pack_segment_header(
            SegmentHeader(
                self._journal_id,
                self._lanes,
                self._salt(SALT_BYTES),
                self.next_seq,
                self._chain,
                (self._clock.now() - EPOCH) // timedelta(microseconds=1),
            )
        )
        header = unpack_segment_header(block)
        assert isinstance(header, SegmentHeader)
        self._write(file, block, 0)
        self._fs.datasync(file)
        try:
            self._fs.rename(self.directory / NEXT_SEGMENT, self.directory / segment_name(self.next_seq))
        except OSError as error:
            raise _fault(error) from error
        self._fs.sync_directory(self.directory)
        if self._file is not None:
            self._fs.close(self._file)
        self._file, self._next_file, self._may_prepare = file, None, True
        self._offset = JOURNAL_BLOCK_BYTES
        self._chain = header.crc
        self._seed = header.seed

    def needs_next(self, body_bytes: int) -> bool:
        """Whether a batch of this size goes to the next segment."""
        return self._offset + blocks_bytes(BATCH_HEADER_BYTES + body_bytes) + JOURNAL_BLOCK_BYTES > self._segment_bytes

    def append(self, body: bytes, count: int) -> None:
        """Write a batch and sync it: when this returns, it is durable."""
        assert count > 0
        try:
            batch, data = self._pack(body, count)
            if batch.end + JOURNAL_BLOCK_BYTES > self._segment_bytes:  # a seal must always find room
                self.start_segment()
                batch, data = self._pack(body, count)
            assert batch.end + JOURNAL_BLOCK_BYTES <= self._segment_bytes, "larger than a segment"
            assert self._file is not None
            self._write(self._file, data, self._offset)
            self._fs.datasync(self._file)
        except (DiskFull, SyncFailed):
            self.seal()
            raise
        self._offset = batch.end
        self._chain = batch.crc
        self.sealed = False
        self.next_seq = batch.next_seq

    def seal(self) -> None:
        """Tell readers that everything so far is synced. If it cannot be written, a later try or batch does."""
        if self._file is None:
            return
        self.sealed = False
        _, data = self._pack(b"", 0)
        with suppress(DiskFull, SyncFailed):
            self._write(self._file, data, self._offset)
            self.sealed = True

    def finish(self) -> None:
        """Leave the journal sealed and no larger than what it holds."""
        assert self._file is not None
        self.seal()
        unused = self._segment_bytes - self._offset - JOURNAL_BLOCK_BYTES
        try:
            self._fs.truncate(self._file, self._segment_bytes - unused)
            self._fs.sync(self._file)
            if self._next_file is not None:
                self._fs.unlink(self.directory / NEXT_SEGMENT)
                unused += self._segment_bytes
        except OSError as error:
            raise _fault(error) from error
        self._fs.sync_directory(self.directory)
        self.bytes_used -= unused
        self.release()

    def release(self) -> None:
        """Close the files as they are."""
        for file in (self._file, self._next_file):
            if file is not None:
                self._fs.close(file)
        self._file = self._next_file = None

    def _pack(self, body: bytes, count: int) -> tuple[BatchHeader, bytes]:
        return pack_batch(
            body, count=count, offset=self._offset, first_seq=self.next_seq, chain=self._chain, seed=self._seed
        )

    def _write(self, file: int, data: bytes, offset: int) -> None:
        try:
            write_all(self._fs, file, data, offset)
        except OSError as error:
            raise _fault(error) from error


def body_bytes_max(segment_bytes: int) -> int:
    """The largest body that fits into an empty segment, beside its header block and a seal."""
    return segment_bytes - 2 * JOURNAL_BLOCK_BYTES - BATCH_HEADER_BYTES


def _fault(error: OSError) -> DiskFull | SyncFailed:
    """No room is a state of the disk that passes; any other error means that we no longer know what is on it."""
    if error.errno in NO_ROOM:
        return DiskFull(f"no room for the journal: {error.strerror}", hint="Free some disk space.")
    return SyncFailed(
        f"writing the journal failed: {error.strerror or error}",
        hint="Look at the kernel log and the health of the disk; unacknowledged data will be sent again.",
    )
