"""Rate limits. Each process counts its own requests, so several processes together allow several times the rate."""

import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from auditstream_admin.settings import AdminSettings
from auditstream_schemas.errors import SettingsError

_DENIALS = "10/minute"
"""Denials of one address or viewer that become audit events, so that a scan cannot fill the log."""


class RateLimits:
    """Counts requests per viewer and per address. Safe to share between threads."""

    def __init__(self, settings: AdminSettings) -> None:
        """Parse the rates.

        Raises:
            SettingsError: A rate is malformed.
        """
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._viewers = _rate("AUDITSTREAM_ADMIN_RATE", settings.admin_rate)
        self._addresses = _rate("AUDITSTREAM_ADMIN_ANONYMOUS_RATE", settings.admin_anonymous_rate)
        self._denials = parse(_DENIALS)

    def viewer(self, subject: str) -> int:
        """Count a request of a viewer; return the seconds to wait, 0 if the request is within the rate."""
        return self._hit(self._viewers, "viewer", subject)

    def address(self, address: str) -> int:
        """Count a request without a viewer; return the seconds to wait, 0 if the request is within the rate."""
        return self._hit(self._addresses, "address", address)

    def allows_denial_event(self, identity: str) -> bool:
        """Count a denial; return whether it becomes an audit event."""
        return self._limiter.hit(self._denials, "denial", identity)

    def _hit(self, rate: RateLimitItem, kind: str, identity: str) -> int:
        if self._limiter.hit(rate, kind, identity):
            return 0
        reset, _ = self._limiter.get_window_stats(rate, kind, identity)
        return max(1, round(reset - time.time()))


def _rate(name: str, text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: was {text!r}; write a rate such as 300/minute") from error
