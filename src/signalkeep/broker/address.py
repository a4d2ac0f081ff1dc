"""The address of the broker, as it may be shown."""

from __future__ import annotations

from urllib.parse import urlsplit

from signalkeep.config import PASSWORD_MASK


def redact(url: str) -> str:
    """Scheme, user, host and path of a URL. What cannot be taken apart for certain is not shown at all."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return PASSWORD_MASK
    if not parts.scheme or not host or "@" in parts.path:
        return PASSWORD_MASK
    user = f"{parts.username or ''}{':' + PASSWORD_MASK if parts.password else ''}"
    place = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{user}{'@' if user else ''}{place}{f':{port}' if port else ''}{parts.path}"
