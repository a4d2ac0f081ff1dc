"""The error tree. Refusals of rows and frames are values (`model.Reason`), not exceptions.

    SignalkeepError                 everything that we raise on purpose; `message` says what happened, `hint` what to do
    ├── CallerError                 a wrong argument, setting or input: nothing will change by trying again
    │   └── SettingsError           settings that cannot be used; names all of them at once
    ├── EnvironmentFault            the machine, the network or a server is not as needed: trying again may help
    │   ├── DatabaseUnavailable     PostgreSQL does not answer, or answers that it cannot work now
    │   ├── UnsafeDatabase          PostgreSQL is configured to lose what it has confirmed
    │   ├── BrokerUnavailable       RabbitMQ does not answer, or does not take what it is given
    │   ├── UnsafeBroker            RabbitMQ is set up to lose what it has confirmed, or our rights there do not suffice
    │   ├── UnsafeDisk              the journal would lie on memory or a network, where a sync is no promise
    │   ├── DiskFull                no space, or above the cap: nothing is acknowledged until there is some
    │   └── AlreadyRunning          another process holds the data directory or a port
    └── SyncFailed                  a sync of the journal failed: what is on the disk is unknown, the process must end

Our own mistakes are assertions, and stop the process.
"""

from __future__ import annotations


class SignalkeepError(Exception):
    """An error with a message for people and a hint at what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CallerError(SignalkeepError):
    """The request itself is wrong."""


class SettingsError(CallerError):
    """One or more settings are wrong; the message has a line for each, with its place."""


class EnvironmentFault(SignalkeepError):
    """Something outside this process is not as needed."""


class DatabaseUnavailable(EnvironmentFault):
    """PostgreSQL cannot be used at the moment."""


class UnsafeDatabase(EnvironmentFault):
    """PostgreSQL runs with settings under which a confirmed commit can be lost."""


class BrokerUnavailable(EnvironmentFault):
    """RabbitMQ cannot be used at the moment."""


class UnsafeBroker(EnvironmentFault):
    """RabbitMQ holds queues or policies under which confirmed messages can be lost, or we lack a right."""


class UnsafeDisk(EnvironmentFault):
    """The journal lies on a file system whose syncs cannot be believed."""


class DiskFull(EnvironmentFault):
    """There is no room for another batch; the entries of this one were not stored."""


class AlreadyRunning(EnvironmentFault):
    """The data directory or a port is in use by another process."""


class SyncFailed(SignalkeepError):
    """fdatasync or fsync reported an error. It must never be retried: the kernel may take the lost pages for clean."""
