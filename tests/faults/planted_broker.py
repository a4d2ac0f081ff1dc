"""Bugs on the way through the broker that a test of its own has to notice: what is planted, and where.

Each is one change of the source's text, applied to a copy; see planted.py. What a whole core would show by chance and
late, these tests show at once: they hold the decisive moment still.
"""

from __future__ import annotations

from typing import Final

from tests.faults.planted_core import Bug

STREAM: Final = "tests/broker/test_stream.py::"
PUBLISHER: Final = "tests/broker/test_publisher.py::"
WORKER: Final = "tests/broker/test_worker.py::"

BROKER_BUGS: Final = (
    Bug(
        "a worker acknowledges before the commit",
        "P2",
        "ingest/worker.py",
        "        writing.begin(batch)\n",
        "        writing.begin(batch)\n        await self._source.done(deliveries)\n",
        by=WORKER + "test_acknowledged_after_the_commit_and_not_before",
    ),
    Bug(
        "what lies behind a hole is written",
        "P2",
        "ingest/pipeline.py",
        "case Fit.HOLE:\n                        raise CursorMoved\n                    case Fit.NEW:",
        "case Fit.NEW | Fit.HOLE:",
        also=(
            (
                "ingest/batches.py",
                "    if any(place < message.after_seq for place in places.values()):\n        return Fit.HOLE\n",
                "",
            ),
        ),
        by=WORKER + "test_what_lies_behind_a_hole_is_dropped_and_the_relay_is_told",
    ),
    Bug(
        "the relay is not told of a hole",
        "I6",
        "ingest/worker.py",
        "            if hole.journal_id is not None:",
        "            if False:",
        by=WORKER + "test_what_lies_behind_a_hole_is_dropped_and_the_relay_is_told",
    ),
    Bug(
        "what comes twice is not cut",
        "P5",
        "ingest/pipeline.py",
        "for numbered in entries[lane] if numbered[0] > cursor]",
        "for numbered in entries[lane]]",
        by=WORKER + "test_what_comes_twice_is_cut_at_the_cursor",
    ),
    Bug(
        "a useless message is acknowledged and not kept",
        "P5",
        "ingest/worker.py",
        "            await relay.set_aside(\n",
        "            await asyncio.sleep(0) or (lambda *_, **__: None)(\n",
        by=WORKER + "test_what_nobody_can_use_is_kept_before_it_is_acknowledged",
    ),
    Bug(
        "what is in hand is forgotten with the connection",
        "P2",
        "ingest/worker.py",
        "        self._again = [one for batch in self._in_hand for one in batch] + self._again",
        "        self._again = []",
        by=WORKER + "test_what_is_in_hand_when_the_database_goes_stays_in_hand",
    ),
    Bug(
        "silence of the broker counts as a confirm",
        "P2",
        "broker/publisher.py",
        "            if not self.blocked:\n                raise",
        "            if not self.blocked:\n                return\n                raise",
        by=PUBLISHER + "test_anything_else_is_none",
    ),
    Bug(
        "a refusal counts as a confirm",
        "P2",
        "broker/publisher.py",
        "        except amqp.DeliveryError as error:\n            raise",
        "        except amqp.DeliveryError as error:\n            return\n            raise",
        by=PUBLISHER + "test_anything_else_is_none",
    ),
    Bug(
        "an alarm of the broker multiplies what waits",
        "I7",
        "broker/publisher.py",
        "            self.blocked = await link.is_blocked()",
        "            self.blocked = False",
        by=PUBLISHER + "test_while_an_alarm_blocks_the_broker_nothing_is_given_up",
    ),
    Bug(
        "messages are not persistent",
        "P2",
        "broker/publisher.py",
        "delivery_mode=aio_pika.DeliveryMode.PERSISTENT",
        "delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT",
        by=PUBLISHER + "test_a_confirm_is_a_confirm",
    ),
    Bug(
        "queues are not quorum queues",
        "P2",
        "broker/topology.py",
        '    "x-queue-type": "quorum",\n',
        '    "x-queue-type": "classic",\n',
        by=PUBLISHER + "test_queues_keep_what_they_confirm_and_have_one_consumer_at_a_time",
    ),
    Bug(
        "a journal is done with when the broker has it",
        "P2",
        "broker/stream.py",
        "        return self.reader.finished and self.cursor >= self.reader.durable_seq",
        "        return self.reader.finished and self.sent >= self.reader.durable_seq",
        by=STREAM + "test_what_is_confirmed_is_not_done_with_until_the_database_has_it",
    ),
    Bug(
        "what was not confirmed is skipped",
        "P2",
        "broker/stream.py",
        "                await asyncio.sleep(backoff.next_s())\n",
        "                made = 0\n                break\n",
        by=STREAM + "test_a_message_that_was_not_confirmed_is_sent_again_as_it_was",
    ),
    Bug(
        "holes send nobody back",
        "I6",
        "broker/stream.py",
        "            return Evidence.HOLE\n",
        "            return None\n",
        by=STREAM + "test_a_hole_sends_back_to_the_cursor_once_and_not_for_every_message_behind_it",
    ),
    Bug(
        "going back begins no new epoch",
        "I7",
        "broker/stream.py",
        "        self.epoch = max(self.epoch, self._epoch_found) + 1",
        "        self.epoch = max(self.epoch, self._epoch_found)",
        by=STREAM + "test_a_hole_sends_back_to_the_cursor_once_and_not_for_every_message_behind_it",
    ),
    Bug(
        "a queue that was gone is no evidence",
        "I6",
        "broker/stream.py",
        "        return Evidence.VANISHED if self._sender.made[self.queue] != self._made else None",
        "        return None",
        by=STREAM + "test_a_queue_that_was_gone_sends_back_to_the_cursor",
    ),
    Bug(
        "a slow worker is answered with more and more",
        "I7",
        "broker/stream.py",
        "                self._stall_s = min(2 * self._stall_s, limits.RELAY_STALL_S_MAX)\n",
        "",
        by=STREAM + "test_an_empty_queue_and_no_progress_for_long_sends_back_and_then_waits_longer",
    ),
    Bug(
        "sessions of a device go through another lane than its frames",
        "P4",
        "journal/lanes.py",
        "    return 0 if isinstance(entry, TallyEntry) else",
        '    return 0 if isinstance(entry, TallyEntry) or hasattr(entry, "kind") else',
        by=STREAM + "test_whatever_speaks_of_a_device_is_in_its_lane",
    ),
)
