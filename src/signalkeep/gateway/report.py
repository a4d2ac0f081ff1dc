"""What a gateway process reports of itself: the one place that reads its counters for metrics and health."""

from __future__ import annotations

from signalkeep.gateway.service import GatewayService
from signalkeep.gateway.stats import ACK_BOUNDS_S
from signalkeep.vitals import GatewayNumbers, Histogram, Report


def report(service: GatewayService) -> Report:
    """Taken on the event loop of the gateway, once a second. It waits while something is appended and not durable."""
    stats, writer = service.stats, service.writer
    return Report(
        handled=writer.durable_seq,
        waits=writer.pending_bytes > 0,
        numbers=GatewayNumbers(
            connections_open=service.connections_open,
            connections_opened=stats.connections_opened,
            datagrams=stats.datagrams,
            bytes_received=stats.bytes_received,
            frames=stats.frames,
            frame_bytes=stats.frame_bytes,
            acknowledged=stats.acknowledged,
            ack_wait=Histogram(list(ACK_BOUNDS_S), list(stats.ack_buckets), stats.ack_seconds),
            refusals={str(reason): count for reason, count in stats.refusals.items()},
            held=service.held,
            pending_bytes=writer.pending_bytes,
            shut=sorted(reason.name.lower() for reason in service.intake.reasons),
            journal=writer.journal_id.hex,
            durable_seq=writer.durable_seq,
        ),
    )
