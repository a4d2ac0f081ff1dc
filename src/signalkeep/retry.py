"""The one way to wait between tries: exponential, capped, with jitter, and back to the start after a success."""

from __future__ import annotations

import random

from signalkeep import limits

TRIES_BEFORE_A_WORD = 4


class Backoff:
    """Waiting times in seconds. Jitter keeps a fleet of processes from trying in step."""

    def __init__(self, first_s: float = limits.RETRY_S_MIN, max_s: float = limits.RETRY_S_MAX) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s
        self._tries = 0

    @property
    def worth_a_word(self) -> bool:
        """True once for a row of failures: when it is too long to be a server that is only just starting."""
        return self._tries == TRIES_BEFORE_A_WORD

    @property
    def was_worth_a_word(self) -> bool:
        """Whether somebody was told of the failures, and should now hear that they are over."""
        return self._tries >= TRIES_BEFORE_A_WORD

    def next_s(self) -> float:
        """How long to wait now."""
        self._tries += 1
        wait_s = self._next_s * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
        self._next_s = min(self._next_s * 2, self._max_s)
        return wait_s

    def reset(self) -> None:
        """It worked: the next wait is a short one again."""
        self._next_s = self._first_s
        self._tries = 0
