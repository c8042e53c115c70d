"""Tells subscribers what happens to their members, as it happens, without a gap from the cursor they saw last.

While somebody follows, the process reads the outbox: at once after a batch of its own or of another process (NOTIFY is a
wake-up and carries nothing), and every POLL_SECONDS besides, so that a lost wake-up costs time and no event.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import chain
from uuid import UUID

import structlog

from gateway.database import Database, DatabaseAway, Listener
from gateway.events.outbox import BadCursor, Event, Place, end_of_outbox, events_of, read_batches, read_events_of
from gateway.turns import OneAtATime

CHANNEL = "outbox"
POLL_SECONDS = 0.5
# One wake-up for all that was posted meanwhile: a commit that notifies takes a lock on which all of them wait.
NOTIFY_SECONDS = 0.05
BATCHES_AT_ONCE = 500
CATCH_UP_BATCHES = 200_000
UNREAD_MAX = 256
FOLLOWERS_MAX = 20

log = structlog.get_logger(__name__)


class TooSlow(Exception):
    """What happened came faster than it was read; `cursor` is where to go on."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"Events came faster than they were read; come back with after: {cursor}")
        self.cursor = cursor


class TooManyFollowers(Exception):
    """The member is followed by as many subscriptions as are allowed."""

    def __init__(self) -> None:
        super().__init__(f"A member can be followed by {FOLLOWERS_MAX} subscriptions at once.")


class _Follower:
    """One subscription's unread events."""

    def __init__(self, by: UUID | None) -> None:
        self.by = by
        self.unread: deque[Event] = deque()
        self.cut_off = False
        self.lost: BadCursor | None = None
        self.more = asyncio.Event()

    def add(self, event: Event) -> None:
        if len(self.unread) >= UNREAD_MAX:
            self.cut_off = True
        if not self.cut_off:
            self.unread.append(event)
        self.more.set()

    async def take(self, seen: str) -> Event:
        """The next event. Raises TooSlow once those that were kept are read, and BadCursor where it cannot go on from them."""
        while not self.unread:
            if self.lost is not None:
                raise self.lost
            if self.cut_off:
                raise TooSlow(seen)
            self.more.clear()
            await self.more.wait()
        return self.unread.popleft()


class Feed:
    """The outbox, read once a process for everybody in it who follows a member."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: dict[UUID, set[_Follower]] = {}
        self._place: Place | None = None
        self._joining = asyncio.Lock()
        self._one_at_a_time = OneAtATime()
        self._wake = asyncio.Event()
        self._posted = False

    def posted(self) -> None:
        """This process has posted something: readers in every process are woken."""
        self._posted = True
        self._wake.set()

    async def follow(
        self, member_id: UUID, after: str | None, by: UUID | None = None
    ) -> AsyncGenerator[tuple[str, Event | None], None]:
        """The member's events after a cursor, then as they happen, each with its cursor; `by` the partner that acts for it,
        which has subscriptions of its own.

        Without a cursor the first thing told is the cursor of now, with no event. Raises BadCursor, TooSlow,
        TooManyFollowers, DatabaseAway.
        """
        begin = Place.read(after) if after is not None else None
        follower = _Follower(by)
        try:
            here = await self._join(member_id, follower)
            seen = after or str(here)
            if begin is None:
                yield seen, None
            else:
                async with self._one_at_a_time(member_id), self._database.reading() as tx:
                    await read_batches(tx, begin, 0)
                async for event in self._between(member_id, begin, here):
                    seen = event.cursor
                    yield seen, event
            while True:
                event = await follower.take(seen)
                if begin is not None and begin > here and Place.read(event.cursor) <= begin:
                    continue  # another process told of it, which had read further
                seen = event.cursor
                yield seen, event
        finally:
            followers = self._followers.get(member_id, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(member_id, None)

    async def run(self) -> None:
        """Read for as long as the process lives, until cancelled; while the database is away, wait."""
        while True:
            try:
                async with self._database.listener(CHANNEL, self._wake.set) as listener:
                    await self._read_on(listener)
            except DatabaseAway:
                pass
            except Exception:
                log.exception("the outbox could not be read")
            await asyncio.sleep(POLL_SECONDS)

    async def _read_on(self, listener: Listener) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):  # wait_for of Python 3.11 can lose a cancellation
                    await self._wake.wait()
            self._wake.clear()
            if self._posted:
                self._posted = False
                await listener.notify()
            elif listener.is_closed():
                raise DatabaseAway
            if not self._followers:
                self._place = None
            while self._place is not None and await self._tell():
                pass
            await asyncio.sleep(NOTIFY_SECONDS)

    async def _tell(self) -> bool:
        """Tell of the next batches; whether there may be more."""
        assert self._place is not None
        try:
            async with self._database.reading() as tx:
                rows = await read_batches(tx, self._place, BATCHES_AT_ONCE)
        except BadCursor as error:
            log.error("whoever follows begins anew", why=str(error))
            for follower in chain.from_iterable(self._followers.values()):
                follower.lost = error
                follower.more.set()
            self._place = None
            return False
        for row in rows:
            for event in events_of(row, self._followers.keys(), self._place):
                for follower in self._followers[event.member_id]:
                    follower.add(event)
        if rows:
            self._place = Place.after(rows[-1])
        return len(rows) > BATCHES_AT_ONCE

    async def _join(self, member_id: UUID, follower: _Follower) -> Place:
        """Be told of everything after a place, and answer which. Raises TooManyFollowers, DatabaseAway."""
        async with self._joining:
            if self._place is None:
                async with self._database.reading() as tx:
                    place = await end_of_outbox(tx)
                self._place = self._place or place
            followers = self._followers.setdefault(member_id, set())
            if sum(each.by == follower.by for each in followers) >= FOLLOWERS_MAX:
                raise TooManyFollowers
            followers.add(follower)
            return self._place

    async def _between(self, member_id: UUID, begin: Place, end: Place) -> AsyncIterator[Event]:
        place: Place | None = begin
        scanned = 0
        while place is not None and place < end:
            scanned += BATCHES_AT_ONCE
            if scanned > CATCH_UP_BATCHES:
                raise BadCursor("The cursor is too old to catch up from; read the wallets anew and begin without one.")
            # However many catch up on one member at once, they take one connection.
            async with self._one_at_a_time(member_id), self._database.reading() as tx:
                found, place = await read_events_of(tx, member_id, place, BATCHES_AT_ONCE)
            for event in found:
                if Place.read(event.cursor) <= end:
                    yield event
