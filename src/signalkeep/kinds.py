"""What can be wrong: every kind of incident, with the words for people. docs/incidents.md is made of it.

A kind belongs to one check (`source`), which alone opens and clears incidents of it. Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Scope(StrEnum):
    """What an incident is about, and so who is told: customers of devices and groups, admins of the rest."""

    DEVICE = "device"
    GROUP = "group"  # many devices at once: an area, a model, the whole fleet
    SERVICE = "service"
    STORAGE = "storage"


class Grade(StrEnum):
    """How much it matters. What people are told first, and what a page shows in red."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Stage(StrEnum):
    """In the words of the ELD rules: seen, and often or long enough to tell people."""

    DIAGNOSTIC = "diagnostic"
    MALFUNCTION = "malfunction"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of incident. `title` goes before its subject: "silent: device 350..."."""

    name: str
    source: str  # the check
    scope: Scope
    severity: Grade
    title: str
    meaning: str
    what_to_do: str


DEVICE_KINDS: Final = (
    Kind(
        name="silent",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="silent",
        meaning="The device has not been heard of for several times as long as it should be.",
        what_to_do="Ask where the vehicle is. Look at the device's power, its SIM card and the network there.",
    ),
    Kind(
        name="no_fix",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.ERROR,
        title="no position",
        meaning="Reports come, but for an hour or more no good position among them, while the vehicle was used.",
        what_to_do="Let the installer look at the antenna, its cable and its place. Or somebody jams it there.",
    ),
    Kind(
        name="restart_loop",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="restarts, or hardly any network",
        meaning="The device connects anew again and again, or had hardly any network for most of the day.",
        what_to_do="See whether its supply falters. Then its SIM card, its plan and the modem's antenna.",
    ),
    Kind(
        name="power_low",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="power is low",
        meaning="The vehicle's supply or the device's own battery is too low, and not for a moment.",
        what_to_do="Have the vehicle's battery and the device's wiring looked at, before it falls silent.",
    ),
    Kind(
        name="power_cut",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.ERROR,
        title="cut off from power",
        meaning="The device has lost the vehicle's supply, or is tampered with. Its battery lasts for hours.",
        what_to_do="Call the driver. If nobody works on the vehicle, treat it as theft while positions still come.",
    ),
    Kind(
        name="cloned",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.ERROR,
        title="one number, two devices",
        meaning="Positions under its number alternate between two places, faster than anything travels.",
        what_to_do="Find out who has the second unit, and have it switched off or numbered anew.",
    ),
    Kind(
        name="wrong_clock",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="wrong clock",
        meaning="Its times are ahead, in another time zone or unit, or off by the weeks of a counter that turned over.",
        what_to_do="Set the device to UTC, or tell its zone: `signalkeep devices set`. Old ones need new firmware.",
    ),
    Kind(
        name="identity_changed",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="another SIM card, firmware or model",
        meaning="The device names another SIM card, firmware, vehicle or model than before.",
        what_to_do="Ask who services the vehicle. If nobody knows of it, have the SIM card blocked.",
    ),
    Kind(
        name="flood",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="sends far too much",
        meaning="Far more signals within an hour than a vehicle needs.",
        what_to_do="See which event repeats: a loose contact at an input, or an interval that was set for a test.",
    ),
    Kind(
        name="jamming",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="jammed",
        meaning="The device says that somebody disturbs its satellite signals or its network.",
        what_to_do="If it follows one vehicle, talk to its driver; if others near it say so, too, wait.",
    ),
    Kind(
        name="error_limit",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.ERROR,
        title="limit of an error type reached",
        meaning="So many hits of an error type that the device is to be checked. The detail names the type.",
        what_to_do="`signalkeep errors traces --device NUMBER` shows the hits. `signalkeep rules explain` tells more.",
    ),
    Kind(
        name="position_faults",
        source="devices",
        scope=Scope.DEVICE,
        severity=Grade.WARNING,
        title="wrong positions",
        meaning="Rules doubt its positions so often that the receiver or its antenna must be broken.",
        what_to_do="`signalkeep findings list --device NUMBER` says which; let the installer look at the antenna.",
    ),
    Kind(
        name="shared_fault",
        source="devices",
        scope=Scope.GROUP,
        severity=Grade.ERROR,
        title="many devices at once",
        meaning="Many devices have the same trouble since about the same time: of the whole fleet, of a model, or of "
        "an area. Their own incidents are part of this one.",
        what_to_do="It is the fault of none of them. The whole fleet: look at our gateways and the network before "
        "them. A model: what was changed? An area: the mobile network there, or jamming.",
    ),
)
SERVICE_KINDS: Final = (
    Kind(
        name="service_down",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="does not work",
        meaning="A process of ours that should run does not, or what devices need to be acknowledged has stopped.",
        what_to_do="The detail names the reason, the log there the rest. A supervisor starts it again by itself.",
    ),
    Kind(
        name="service_degraded",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="works only in part",
        meaning="Devices are acknowledged, but something behind that is not as it should be: rows may come late.",
        what_to_do="The detail says which part it is; `signalkeep status` shows what waits.",
    ),
    Kind(
        name="role_hung",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="hangs",
        meaning="A process is there and has not moved for longer than `monitor.hung_after_s`.",
        what_to_do="Look at its machine: a disk that hangs, no memory, a stopped process. Else restart the core there.",
    ),
    Kind(
        name="role_restarting",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="ends again and again",
        meaning="A process was started again three times or more within ten minutes.",
        what_to_do="Its log says why it ends. What devices were acknowledged for is safe in the journal.",
    ),
    Kind(
        name="host_silent",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="says nothing any more",
        meaning="The monitor of a machine has written nothing for a minute: it, the network or the machine is away.",
        what_to_do="Look at that machine. One that is gone for good is forgotten after seven days.",
    ),
    Kind(
        name="broker_away",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="cannot be used",
        meaning="Relays or workers have no connection to RabbitMQ, or it takes nothing: its memory or disk is short.",
        what_to_do="Look at RabbitMQ, or ask `signalkeep doctor`. Devices are acknowledged meanwhile; rows wait.",
    ),
    Kind(
        name="disk_low",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="nearly full",
        meaning="The journals come near their cap, or their disk has less than twice `journal.disk_free_bytes` left.",
        what_to_do="Make room, or see why the database does not get the rows: ingested segments go by themselves.",
    ),
    Kind(
        name="disk_full",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="full or unusable: devices are not acknowledged",
        meaning="The journals are at their cap, or their disk has no room or cannot be read: sockets are not read.",
        what_to_do="Make room at once, or raise `journal.cap_bytes`. Devices keep what they have and send it later.",
    ),
    Kind(
        name="canary_lost",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="its signal does not arrive",
        meaning="A signal sent through the gateway's own port is not acknowledged, or no row, within its deadline.",
        what_to_do="`signalkeep status` and /readyz say which part does not move. What stops it stops devices, too.",
    ),
    Kind(
        name="watch_down",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="does not answer as it should",
        meaning="Something that `services.watch` names cannot be reached, is too slow, or answers otherwise.",
        what_to_do="Look at that service: it is not part of signalkeep.",
    ),
    Kind(
        name="clock_offset",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="is wrong",
        meaning="The clocks of a machine and of the database differ by more than two seconds.",
        what_to_do="Keep both right (NTP): records carry times of both.",
    ),
    Kind(
        name="certificate_expires",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="ends soon",
        meaning="A certificate of ours ends within 14 days, has ended, or cannot be read: clients will refuse us.",
        what_to_do="Put a new one in its place; gateways read it by themselves.",
    ),
    Kind(
        name="rule_broken",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="cannot judge",
        meaning="A rule of data quality raised an error instead of judging. No signal is lost, findings are missing.",
        what_to_do="The log names the error. A rule of your own: mend it; one of ours: report it.",
    ),
    Kind(
        name="job_failing",
        source="services",
        scope=Scope.SERVICE,
        severity=Grade.WARNING,
        title="is not done",
        meaning="Periodic work of the organizer failed three times in a row, or has not begun for much too long.",
        what_to_do="`signalkeep organizer status` shows its last result, the organizer's log the rest.",
    ),
)
STORAGE_KINDS: Final = (
    Kind(
        name="sums_off",
        source="audit",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="do not add up",
        meaning="The audit found records, rows or files that should be there and are not, or are there too often.",
        what_to_do="`signalkeep audit` names everything that is off. Keep the journals; do not restart blindly.",
    ),
    Kind(
        name="journal_vanished",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="is gone",
        meaning="The files of a journal were taken away by somebody else than signalkeep.",
        what_to_do="Bring them back from a backup or the archive if entries were not ingested; then acknowledge.",
    ),
    Kind(
        name="journal_range_lost",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="lost a range",
        meaning="Entries of a journal are damaged, and were not read. The detail says which, and where the bytes are.",
        what_to_do="Look at the disk. Devices that keep what they sent may be asked to send it again.",
    ),
    Kind(
        name="journal_shorter_than_cursor",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.WARNING,
        title="is shorter than it was",
        meaning="The database has entries that the journal's files do not hold any more: they cannot be replayed.",
        what_to_do="Nothing is missing in the database. See what shortened the files.",
    ),
    Kind(
        name="journal_unreadable",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="cannot be read by this version",
        meaning="A journal was written by a newer signalkeep. Nothing of it is lost, nothing of it is ingested yet.",
        what_to_do="Install the newer version.",
    ),
    Kind(
        name="cursor_moved_back",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.WARNING,
        title="is driven again",
        meaning="The database was restored from an older state; what the journals hold since then is ingested again.",
        what_to_do="Nothing, if the restore was meant. Audit afterwards.",
    ),
    Kind(
        name="database_restored",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.WARNING,
        title="was restored",
        meaning="A backup was restored; the detail says what is driven again from the journals.",
        what_to_do="Audit when ingest has caught up.",
    ),
    Kind(
        name="journal_end_unknown",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="has lost its end",
        meaning="A restored backup holds a journal up to an entry; what was acknowledged behind it is gone.",
        what_to_do="Look for that journal's files. Devices that keep what they sent may be asked to send it again.",
    ),
    Kind(
        name="restore_gap",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="leaves a gap",
        meaning="Between the restored backup and what the journals hold, something is missing.",
        what_to_do="The detail says which range or time. Look for newer backups or an archive of journals.",
    ),
    Kind(
        name="archive_failed",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="cannot be written",
        meaning="Segments cannot be moved to the archive: they stay where they are and fill the journal's disk.",
        what_to_do="Make the archive writable, with room.",
    ),
    Kind(
        name="broker_message_set_aside",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.WARNING,
        title="set messages aside",
        meaning="Messages from RabbitMQ are none of ours, or damaged. Their frames come again from the journal.",
        what_to_do="The table set_aside holds them. See who else writes to our queues.",
    ),
    Kind(
        name="erasures_unreadable",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.ERROR,
        title="cannot be read",
        meaning="The file that remembers erasures is damaged: a restored database could bring erased data back.",
        what_to_do="After a restore, make those erasures again by hand.",
    ),
    Kind(
        name="erasure_repeated",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.INFO,
        title="was erased again",
        meaning="A restored database had forgotten an erasure; it was made again.",
        what_to_do="Nothing.",
    ),
    Kind(
        name="reader_role",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.WARNING,
        title="is missing",
        meaning="The role for programs that only read could not be made or is not as it should be.",
        what_to_do="The detail says which statement an administrator has to run.",
    ),
    Kind(
        name="fleet_rule",
        source="findings",
        scope=Scope.GROUP,
        severity=Grade.WARNING,
        title="shows at many devices at once",
        meaning="A rule about the whole fleet was hit: what many devices show at once is the fault of none of them.",
        what_to_do="docs/rules.md says for each rule what to look at.",
    ),
    Kind(
        name="other_finding",
        source="findings",
        scope=Scope.STORAGE,
        severity=Grade.WARNING,
        title="was found",
        meaning="A check noted something that has no kind of its own.",
        what_to_do="The table finding holds it.",
    ),
)
NOTIFY_KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        name="channel_failing",
        source="notify",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="messages do not get through",
        meaning="A channel has failed several times in a row, or hangs. What it should carry waits; the others go on.",
        what_to_do="`signalkeep notify test CHANNEL` says what is wrong. Look at its address, password and server.",
    ),
    Kind(
        name="database_away",
        source="database",
        scope=Scope.SERVICE,
        severity=Grade.ERROR,
        title="cannot be used",
        meaning="PostgreSQL is away or does not answer. Devices are acknowledged meanwhile; what they send waits.",
        what_to_do="Look at the server, its disk and its log; `signalkeep doctor` looks closer.",
    ),
)

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind for kind in (*DEVICE_KINDS, *SERVICE_KINDS, *STORAGE_KINDS, *NOTIFY_KINDS)
}
