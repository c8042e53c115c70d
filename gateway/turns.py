"""Turns at what one process does one after the other: at a thing, or at names that are in use."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from weakref import WeakValueDictionary

from gateway.parties import PARTY, STRANGERS

CLAIMANTS_MAX, CLAIMANTS_MAX_OF_ONE = 20_000, 1_000


class Busy(RuntimeError):
    """Not now, and nobody is to blame; the same request can be sent again in a moment."""


class _Waiting:
    """Who waits for one another: so many in all, and a part of them of one party. Of strangers nobody knows who they are: so many
    of them wait for one name."""

    def __init__(self) -> None:
        self._of, self._all = Counter[Hashable](), 0

    @contextmanager
    def one(self, name: Hashable) -> Iterator[None]:
        """Somebody who waits. Raises Busy."""
        party: Hashable = PARTY.get()
        if party == STRANGERS:
            party = STRANGERS, name
        if self._of[party] >= CLAIMANTS_MAX_OF_ONE or self._all >= CLAIMANTS_MAX:
            raise Busy("Too many requests wait for one another; try again in a moment.")
        self._of[party] += 1
        self._all += 1
        try:
            yield
        finally:
            self._of[party] -= 1
            self._all -= 1
            if not self._of[party]:
                del self._of[party]


class OneAtATime:
    """Locks by name, for what one process does to one thing: they exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._waiting = _Waiting()

    @asynccontextmanager
    async def __call__(self, *name: Hashable) -> AsyncIterator[None]:
        """Raises Busy where too many wait already."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        with self._waiting.one(name) if lock.locked() else nullcontext():
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()


class Claims:
    """Names that are in use by somebody in this process; whoever wants one waits until it is free, one after the other."""

    def __init__(self) -> None:
        self._taken: set[Hashable] = set()
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._waiting = _Waiting()

    async def claim(self, names: Sequence[Hashable]) -> None:
        """Take all of `names`, which are distinct, at one moment when all of them are free. Raises Busy where too many wait
        already."""
        awaited: Hashable = None
        while (busy := next((name for name in names if name in self._taken), None)) is not None:
            self._call(awaited)  # while this one waits for another name
            with self._waiting.one(busy):
                await self._turn(busy)
            awaited = busy
        self._taken.update(names)

    async def _turn(self, name: Hashable) -> None:
        """Wait for a name in its line, until it has been given back."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(name, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._call(name)  # it was this one's turn already
            raise

    def free(self, names: Sequence[Hashable]) -> None:
        """Give `names` back, which were taken by one claim."""
        self._taken.difference_update(names)
        for name in names:
            self._call(name)

    def _call(self, name: Hashable) -> None:
        """Let the next one in the line of a name try, if the name is free; one at a time, since all but one would try in vain."""
        line = self._lines.get(name)
        while line and name not in self._taken:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if line is not None and not line:
            del self._lines[name]
