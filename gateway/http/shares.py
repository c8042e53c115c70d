"""What one caller may have of a process at once: operations that run, requests in memory, and answers that it has not read."""

import gc
from asyncio import Semaphore, get_running_loop, timeout
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID
from weakref import WeakValueDictionary

from gateway.access.caller import Caller
from gateway.http.cost import COST_MAX
from gateway.http.refusing import RequestRefused

# Each request crosses the loop some ten times, and each time waits for a piece of everything that is there: so many of one
# party's are being read and checked. None waits longer for the others than for a database that does not answer.
ADMITTED_AT_ONCE, ENTRANCE_SECONDS = 8, 5
# Of operations of less than so many points so many run at once: each point is work for the loop, and a mutation's are more of it
# than a query's. Small mutations wait for one another in batches, where more cost less.
QUERIES_AT_ONCE = ((100, 32), (1_000, 3), (10_000, 2), (COST_MAX + 1, 1))
MUTATIONS_AT_ONCE = ((100, 100), (200, 32), (2_000, 6), (20_000, 2), (COST_MAX + 1, 1))
# Of members there are many, who need little: an answer of the largest size.
UNREAD_MAX_BYTES, MEMBERS_UNREAD_MAX_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
# What counts of a request in memory, the most that one may take, and all of a party's that are not answered.
LIGHT_WEIGHT = 32 * 1024
# Of requests that are over, what may wait for the collector.
COLLECTED_WEIGHT = 128 * 1024 * 1024
REQUEST_MAX_WEIGHT, HELD_MAX_WEIGHT, MEMBERS_HELD_MAX_WEIGHT = 64 * 1024 * 1024, 128 * 1024 * 1024, 8 * 1024 * 1024


class Turns:
    """Of one party's operations a few run at once: each holds everybody else up a little, and all of them a lot.

    Large ones wait for large ones alone, and queries for queries, so that a report holds no till up.
    """

    def __init__(self) -> None:
        # One is kept for as long as somebody has it or waits for it.
        self._turns: WeakValueDictionary[tuple[UUID | None, int, bool, bool], Semaphore] = WeakValueDictionary()
        self._entrances: WeakValueDictionary[UUID | None, Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def at_the_entrance(self, caller: Caller) -> AsyncIterator[None]:
        """A turn at being read and checked; the next one has it when everybody else has had a turn of the loop. Raises
        RequestRefused where none comes in time."""
        entrance = self._entrances.get(caller.party)
        if entrance is None:
            entrance = self._entrances[caller.party] = Semaphore(ADMITTED_AT_ONCE)
        try:
            async with timeout(ENTRANCE_SECONDS if entrance.locked() else None):
                await entrance.acquire()
        except TimeoutError:
            told = f"{ADMITTED_AT_ONCE} other requests of yours are being read, and wait themselves; try again in a moment."
            raise RequestRefused(429, "BUSY", told, {"Retry-After": "1"}) from None
        try:
            yield
        finally:
            get_running_loop().call_soon(entrance.release)

    def of(self, caller: Caller, points: int, is_mutation: bool = False, asks_partners: bool = False) -> Semaphore:
        """What an operation of so many points holds while it runs. Those that ask partners' own systems, which may take their
        time, hold up none but one another."""
        sizes = MUTATIONS_AT_ONCE if is_mutation else QUERIES_AT_ONCE
        below, most = next((size for size in sizes if points < size[0]), sizes[-1])
        key = caller.party, below, is_mutation, asks_partners
        turns = self._turns.get(key)
        if turns is None:
            turns = self._turns[key] = Semaphore(most)
        return turns


class Unread:
    """The bytes of answers that are on their way to their readers, wherever they wait."""

    def __init__(self) -> None:
        self._bytes: Counter[UUID | None] = Counter()

    def check(self, caller: Caller, size: int, most: int) -> None:
        """Raises RequestRefused for an answer larger than `most` bytes, or too large beside what waits for the same reader."""
        if size > most:
            told = f"The answer has {size} bytes, and {most} at most are sent here. Ask for fewer items at once."
            raise RequestRefused(400, "ANSWER_TOO_LARGE", told)
        most = MEMBERS_UNREAD_MAX_BYTES if caller.is_member_itself else UNREAD_MAX_BYTES
        if self._bytes[caller.party] + size > most:
            told = f"{most} bytes of answers may wait to be read, and with this one there would be more; read them first."
            raise RequestRefused(429, "BUSY", told, {"Retry-After": "1"})

    @contextmanager
    def counting(self, caller: Caller, size: int) -> Iterator[None]:
        """An answer that is on its way."""
        holder = caller.party
        self._bytes[holder] += size
        try:
            yield
        finally:
            self._bytes[holder] -= size
            if not self._bytes[holder]:
                del self._bytes[holder]


class Requests:
    """The bytes that requests take in memory, from the first one that is read until they are answered."""

    def __init__(self) -> None:
        self._weight: Counter[UUID | None] = Counter()
        self._let_go = 0

    def holding(self) -> "Held":
        """One request, which weighs nothing yet."""
        return Held(self._weight, self._count)

    def _count(self, weight: int) -> None:
        # What was broken off, or failed, may be held by rings of its frames until the collector comes, which counts objects and
        # not their bytes.
        self._let_go += weight
        if self._let_go > COLLECTED_WEIGHT:
            self._let_go = 0
            gc.collect()


class Held:
    """What one request takes, until the end of a block."""

    __slots__ = ("_let_go", "_of_all", "_party", "_weight")

    def __init__(self, of_all: Counter[UUID | None], let_go: Callable[[int], None]) -> None:
        self._of_all, self._let_go, self._weight = of_all, let_go, 0

    def add(self, caller: Caller, weight: int) -> None:
        """Raises RequestRefused for what is too much, alone or beside the party's other requests."""
        self._party = caller.party
        self._of_all[self._party] += weight
        self._weight += weight
        if self._weight > REQUEST_MAX_WEIGHT:
            told = f"The request takes {self._weight} bytes in memory, with its names and items; {REQUEST_MAX_WEIGHT} at most."
            raise RequestRefused(413, "BODY_TOO_LARGE", told)
        if self._of_all[self._party] > (MEMBERS_HELD_MAX_WEIGHT if caller.is_member_itself else HELD_MAX_WEIGHT):
            told = "Your other requests, which are not answered yet, leave no room for this one; try again in a moment."
            raise RequestRefused(429, "BUSY", told, {"Retry-After": "1"})

    def weigh(self, caller: Caller, weight: int) -> None:
        """What it takes in all, where that is not light. Raises RequestRefused."""
        if weight > LIGHT_WEIGHT:
            self.add(caller, weight - self._weight)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        if self._weight:
            self._of_all[self._party] -= self._weight
            if not self._of_all[self._party]:
                del self._of_all[self._party]
            self._let_go(self._weight)
