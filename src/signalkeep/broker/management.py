"""Policies that would trim our queues, seen through the broker's management plugin where there is one.

A policy cannot be seen over AMQP. Where the plugin does not answer, that is said once: what a policy could do is made
harmless by the arguments of the queues (a full queue refuses, what expires goes aside and is sent again).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from signalkeep import limits
from signalkeep.broker.topology import ASIDE_QUEUE, TRIMMING, queue_name
from signalkeep.errors import UnsafeBroker
from signalkeep.sections import BrokerSettings
from signalkeep.telemetry import get_logger

PLAIN_PORT, TLS_PORT = 15672, 15671

log = get_logger()
_told: set[str] = set()


async def refuse_trimming(settings: BrokerSettings, queues: Iterable[int]) -> None:
    """Raises UnsafeBroker if a policy trims one of our queues. Silent where policies cannot be seen, but for a word."""
    try:
        kinds = [await asyncio.to_thread(_policies, settings, kind) for kind in ("policies", "operator-policies")]
    except (OSError, ValueError) as error:
        _say_once(f"policies of the broker cannot be seen: {type(error).__name__}: {error}")
        return
    for name in map(queue_name, (*queues, ASIDE_QUEUE)):
        for policy in (applying(name, policies) for policies in kinds):
            trimming = sorted(TRIMMING & policy["definition"].keys()) if policy else []
            if trimming:
                raise UnsafeBroker(
                    f"the policy {policy['name']!r} sets {', '.join(trimming)} on {name}: "
                    "it would throw away what is confirmed",
                    hint="Let that policy leave queues alone whose names begin with `signalkeep.`.",
                )


async def visible(settings: BrokerSettings) -> bool:
    """Whether policies can be seen."""
    try:
        await asyncio.to_thread(_policies, settings, "policies")
    except (OSError, ValueError):
        return False
    return True


def applying(name: str, policies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The policy that a quorum queue of that name has: of those that match, the one with the highest priority."""
    matching = [
        policy
        for policy in policies
        if policy["apply-to"] in {"all", "queues", "quorum_queues"} and re.search(policy["pattern"], name)
    ]
    return max(matching, key=lambda policy: policy["priority"], default={})


def management_url(settings: BrokerSettings) -> str:
    """Where the plugin listens, as set or as usual."""
    if settings.management_url:
        return settings.management_url.rstrip("/")
    parts = urlsplit(settings.resolved_url())
    scheme, port = ("https", TLS_PORT) if parts.scheme == "amqps" else ("http", PLAIN_PORT)
    host = parts.hostname or "localhost"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _policies(settings: BrokerSettings, kind: str) -> list[dict[str, Any]]:
    """What the plugin says of our virtual host. Raises OSError or ValueError."""
    broker, base = urlsplit(settings.resolved_url()), urlsplit(management_url(settings))
    user = unquote(base.username or broker.username or "guest")
    password = unquote(base.password or broker.password or "guest")
    vhost = unquote(broker.path[1:]) or "/"
    place = base.netloc.rpartition("@")[2]
    request = urllib.request.Request(  # noqa: S310 - the scheme is one of two, by the setting
        f"{base.scheme}://{place}{base.path}/api/{kind}/{quote(vhost, safe='')}",
        headers={"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()},
    )
    context = ssl.create_default_context(cafile=settings.ca_file) if base.scheme == "https" else None
    with urllib.request.urlopen(request, timeout=limits.BROKER_CALL_S_MAX / 5, context=context) as answer:  # noqa: S310 - http or https
        found: list[dict[str, Any]] = json.load(answer)
    return found


def _say_once(what: str) -> None:
    if what not in _told:
        _told.add(what)
        log.info(what, hint="set broker.management_url, or see to it that no policy trims our queues")
