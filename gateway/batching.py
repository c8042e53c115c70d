"""Gathers concurrent calls into one batch: while one batch is in flight the next one fills. No timer.

Lanes are chosen by bucket, so that two batches never want the same wallet. Items that claim the same thing (a key,
a receipt, a wallet that both take from) never share a batch: the later one waits for the next.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH_MAX = 1_000
QUEUE_MAX = 20_000
CLAIMANTS_MAX = 2_000
ASIDE_AT_ONCE = 4
ASIDE_MAX = 2 * BATCH_MAX


class Busy(RuntimeError):
    """The gateway has more work queued than it accepts; the same request can be sent again in a moment."""


class OneAtATime:
    """Locks by name, for what one process does to one thing: they exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._waiting = 0

    @asynccontextmanager
    async def __call__(self, *name: Hashable) -> AsyncIterator[None]:
        """Raises Busy when CLAIMANTS_MAX callers wait already."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        if lock.locked() and self._waiting >= CLAIMANTS_MAX:
            raise Busy("Too many requests wait for one another; try again in a moment.")
        self._waiting += 1
        try:
            await lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            lock.release()


class Claims:
    """Names that are in use by somebody in this process; whoever wants one waits until it is free."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, asyncio.Future[None]] = {}
        self._waiting = 0

    async def claim(self, names: Sequence[Hashable]) -> None:
        """Take all of `names`, which are distinct, at one moment when all of them are free. Raises Busy when CLAIMANTS_MAX
        callers wait already."""
        while (busy := next((self._taken[name] for name in names if name in self._taken), None)) is not None:
            if self._waiting >= CLAIMANTS_MAX:
                raise Busy("Too many requests wait for one another; try again in a moment.")
            self._waiting += 1
            try:
                await asyncio.shield(busy)
            finally:
                self._waiting -= 1
        freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name in names:
            self._taken[name] = freed

    def free(self, names: Sequence[Hashable]) -> None:
        """Give `names` back, which were taken by one claim."""
        freed = self._taken[names[0]]
        for name in names:
            del self._taken[name]
        freed.set_result(None)


class _Call(Generic[Answer]):
    """One caller's items: their answers, and the future that is done when none is missing."""

    __slots__ = ("after", "answers", "done", "error", "missing")

    def __init__(self, size: int, after: Callable[[], None] | None) -> None:
        self.answers: list[Answer | None] = [None] * size
        self.missing, self.after = size, after
        self.error: BaseException | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(self, position: int, answer: Answer) -> None:
        self.answers[position] = answer
        self._settle_one()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._settle_one()

    def _settle_one(self) -> None:
        self.missing -= 1
        if self.missing:
            return
        if self.after is not None:
            self.after()
        if not self.done.done():
            if self.error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(self.error)


class Lanes(Generic[Item, Answer]):
    """Posts items in batches of up to BATCH_MAX, `count` batches side by side.

    `post` answers a batch in its order; `bucket` places an item in a lane; `claims` names what no other item of its
    batch may claim. A caller that goes away leaves its items to be posted: they are never half-known. A batch that raises
    `stuck` waited for something that others hold: its items are posted beside the lane, which goes on, those of one `wallet`
    together, and those that are stuck again are told to come back.
    """

    def __init__(
        self,
        post: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        bucket: Callable[[Item], int],
        claims: Callable[[Item], Sequence[Hashable]],
        count: int,
        stuck: type[Exception] = TimeoutError,
        wallet: Callable[[Item], Hashable] = id,
    ) -> None:
        self._post, self._bucket, self._claims, self._stuck, self._wallet = post, bucket, claims, stuck, wallet
        self._aside: set[asyncio.Task[None]] = set()
        self._items_aside = 0
        self._few = asyncio.Semaphore(ASIDE_AT_ONCE)
        self._queues: list[deque[tuple[Item, _Call[Answer], int]]] = [deque() for _ in range(count)]
        self._runners: list[asyncio.Task[None] | None] = [None] * count

    async def submit(self, items: Sequence[Item], after: Callable[[], None] | None = None) -> list[Answer]:
        """Post items and answer them in order. Raises Busy, and whatever posting raised.

        `after` is called once all of them are settled, also if the caller has gone by then, or nothing was posted.
        """
        if not items or self.waiting + len(items) > QUEUE_MAX:
            if after is not None:
                after()
            if not items:
                return []
            raise Busy("Too much is waiting to be posted; try again in a moment.")
        call: _Call[Answer] = _Call(len(items), after)
        count = len(self._queues)
        for position, item in enumerate(items):
            self._queues[self._bucket(item) % count].append((item, call, position))
        for lane, queue in enumerate(self._queues):
            if queue and self._runners[lane] is None:
                self._runners[lane] = asyncio.create_task(self._run(lane), context=Context())  # for all, and in nobody's name
        await call.done
        return call.answers  # type: ignore[return-value]

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet, and those that are posted beside a lane."""
        return sum(map(len, self._queues)) + self._items_aside

    async def drain(self) -> None:
        """Wait until everything queued has been posted."""
        while under_way := [*(runner for runner in self._runners if runner is not None), *self._aside]:
            await asyncio.gather(*under_way)

    async def _run(self, lane: int) -> None:
        queue = self._queues[lane]
        try:
            while queue:
                await self._post_batch(self._take_batch(queue))
        finally:
            self._runners[lane] = None

    def _take_batch(self, queue: deque[tuple[Item, _Call[Answer], int]]) -> list[tuple[Item, _Call[Answer], int]]:
        batch: list[tuple[Item, _Call[Answer], int]] = []
        waiting: list[tuple[Item, _Call[Answer], int]] = []
        claimed: set[Hashable] = set()
        while queue and len(batch) < BATCH_MAX:
            ticket = queue.popleft()
            claims = self._claims(ticket[0])
            # What waits keeps its claims, so that nothing behind it overtakes it.
            (waiting if not claimed.isdisjoint(claims) else batch).append(ticket)
            claimed.update(claims)
        queue.extendleft(reversed(waiting))
        return batch

    async def _post_batch(self, batch: list[tuple[Item, _Call[Answer], int]]) -> None:
        try:
            answers = await self._post([item for item, _, _ in batch])
        except (ConnectionError, Busy) as error:
            for _, call, _ in batch:
                call.fail(error)
        except self._stuck:
            by_wallet: dict[Hashable, list[tuple[Item, _Call[Answer], int]]] = {}
            for ticket in batch:
                by_wallet.setdefault(self._wallet(ticket[0]), []).append(ticket)
            for tickets in by_wallet.values():
                if len(by_wallet) == 1:
                    _tell_busy(tickets)
                else:
                    self._post_aside(tickets)
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].fail(error)
                return
            # One bad item must not fail its neighbours: nothing was posted, so post them one by one.
            for ticket in batch:
                await self._post_batch([ticket])
        else:
            for (_, call, position), answer in zip(batch, answers, strict=True):
                call.answer(position, answer)

    def _post_aside(self, tickets: list[tuple[Item, _Call[Answer], int]]) -> None:
        if self._items_aside + len(tickets) > ASIDE_MAX:
            _tell_busy(tickets)
            return
        self._items_aside += len(tickets)

        async def post() -> None:
            try:
                async with self._few:
                    await self._post_batch(tickets)
            finally:
                self._items_aside -= len(tickets)

        task = asyncio.create_task(post(), context=Context())
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


def _tell_busy(tickets: Sequence[tuple[Item, _Call[Answer], int]]) -> None:
    for _, call, _ in tickets:
        call.fail(Busy("Somebody else is at work on what this needs; try again in a moment."))
