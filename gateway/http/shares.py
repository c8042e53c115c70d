"""What one caller may have of a process at once: large queries that run, and answers that it has not read."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gateway.access.caller import Caller
from gateway.http.refusing import Refusing

LARGE_POINTS, LARGE_AT_ONCE = 5_000, 2
UNREAD_MAX_BYTES = 64 * 1024 * 1024


class Turns:
    """Of the large queries of one caller a few run at once: each holds everybody else up a little, and all of them a lot."""

    def __init__(self) -> None:
        self._large: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def take(self, caller: Caller, points: int) -> AsyncIterator[None]:
        """Wait until it is the turn of a query of so many points."""
        if points < LARGE_POINTS:
            yield
            return
        holder = str(caller.acting_partner_id or caller.subject_id)  # whom a partner acts for is no turn of its own
        turns, waiting = self._large.get(holder, (asyncio.Semaphore(LARGE_AT_ONCE), 0))
        self._large[holder] = turns, waiting + 1
        try:
            async with turns:
                yield
        finally:
            turns, waiting = self._large[holder]
            self._large[holder] = turns, waiting - 1
            if waiting == 1:
                del self._large[holder]


class Unread:
    """The bytes of answers that are on their way to their readers, wherever they wait."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()

    def check(self, caller: Caller, size: int, most: int) -> None:
        """Raises Refusing for an answer that is larger than `most` bytes, or too large beside what waits for the same reader."""
        if size > most:
            told = f"The answer has {size} bytes, and {most} at most are sent here. Ask for fewer items at once."
            raise Refusing(400, "ANSWER_TOO_LARGE", told)
        if self._bytes[_reader(caller)] + size > UNREAD_MAX_BYTES:
            told = f"{UNREAD_MAX_BYTES} bytes of answers wait to be read; read them first."
            raise Refusing(429, "BUSY", told, {"Retry-After": "1"})

    @contextmanager
    def counting(self, caller: Caller, size: int) -> Iterator[None]:
        """An answer that is on its way."""
        holder = _reader(caller)
        self._bytes[holder] += size
        try:
            yield
        finally:
            self._bytes[holder] -= size
            if not self._bytes[holder]:
                del self._bytes[holder]


def _reader(caller: Caller) -> str:
    return f"{caller.kind} {caller.subject_id} {caller.acting_partner_id}"
