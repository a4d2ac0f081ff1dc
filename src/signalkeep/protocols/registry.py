"""Every protocol that this installation speaks, by name. To add one: write its file, and name it here.

Only values: the gateway serves them, ingest decodes with them, the simulator writes with the encoders, and the
contract suite runs over all of them.
"""

from __future__ import annotations

from typing import Final

from signalkeep.errors import CallerError
from signalkeep.protocols.contract import Encoder, TrackerProtocol
from signalkeep.protocols.json_events import JSON, JSON_ENCODER
from signalkeep.protocols.teltonika import TELTONIKA, TELTONIKA_ENCODER

KNOWN: Final[tuple[TrackerProtocol, ...]] = (TELTONIKA, JSON)

PROTOCOLS: Final[dict[str, TrackerProtocol]] = {protocol.name: protocol for protocol in KNOWN}
ENCODERS: Final[dict[str, Encoder]] = {TELTONIKA.name: TELTONIKA_ENCODER, JSON.name: JSON_ENCODER}

assert len(PROTOCOLS) == len(KNOWN), "two protocols have the same name"
assert ENCODERS.keys() <= PROTOCOLS.keys()


def get(name: str) -> TrackerProtocol:
    """The protocol of this name. Raises CallerError, which names those there are."""
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise CallerError(f"{name}: no such protocol", hint=f"There are {', '.join(sorted(PROTOCOLS))}.")
    return protocol
