"""The only source of the current time, so that a test or a replay can set it."""

from datetime import UTC, datetime
from typing import Protocol

LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""After everything that has happened."""


class Clock(Protocol):
    """Tells the time in UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self, now: datetime) -> None:
        self.set(now)

    def set(self, now: datetime) -> None:
        self._now = now.astimezone(UTC)

    def now(self) -> datetime:
        return self._now
