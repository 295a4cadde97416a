"""How often somebody may ask: counted in this process alone, so several processes let through several times as much."""

import time
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from auditstream_admin.settings import AdminSettings
from auditstream_schemas.errors import SettingsError

_DENIALS = "10/minute"
"""Denials of one address, and of one viewer, that become events: a scan must not fill the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateVerdict:
    """Whether a request is let through.

    Attributes:
        is_passed: Whether it is.
        wait: Seconds after which the next one will be; 0 if this one is.
    """

    is_passed: bool
    wait: int = 0


class RateLimits:
    """Counts requests by who sends them. Safe to share between threads."""

    def __init__(self, settings: AdminSettings) -> None:
        """Read the rates.

        Raises:
            SettingsError: One cannot be read.
        """
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._viewers = _rate("AUDITSTREAM_ADMIN_RATE", settings.admin_rate)
        self._addresses = _rate("AUDITSTREAM_ADMIN_ANONYMOUS_RATE", settings.admin_anonymous_rate)
        self._denials = parse(_DENIALS)

    def viewer(self, subject: str) -> RateVerdict:
        """A request of somebody who is known."""
        return self._hit(self._viewers, "viewer", subject)

    def address(self, address: str) -> RateVerdict:
        """A request of nobody."""
        return self._hit(self._addresses, "address", address)

    def is_denial_told(self, who: str) -> bool:
        """Whether one more denial becomes an event."""
        return self._limiter.hit(self._denials, "denial", who)

    def _hit(self, rate: RateLimitItem, kind: str, who: str) -> RateVerdict:
        if self._limiter.hit(rate, kind, who):
            return RateVerdict(is_passed=True)
        reset, _ = self._limiter.get_window_stats(rate, kind, who)
        return RateVerdict(is_passed=False, wait=max(1, round(reset - time.time())))


def _rate(name: str, text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: was {text!r}; write a rate such as 300/minute") from error
