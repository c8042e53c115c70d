"""Gathers concurrent calls into one batch: while one batch is in flight the next one fills. No timer.

Lanes are chosen by bucket, so that two batches never want the same wallet. Where a batch takes from each wallet once, the
wallets of a lane take turns, and so do those who want one wallet: who asks for a thousand of one holds nobody else up.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

from gateway.turns import Busy

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH_MAX, BATCH_MAX_OF_ONE = 1_000, 250  # of one where others wait
QUEUE_MAX, QUEUE_MAX_OF_ONE = 20_000, 10_000
ASIDE_AT_ONCE = 4
ASIDE_MAX = 2 * BATCH_MAX


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


Ticket = tuple[Item, _Call[Answer], int]


class _Queue(Generic[Item, Answer]):
    """What waits in a lane. What one of those who wait wants is done in its order, and they take turns: a batch holds as much of
    each as there is room for."""

    def __init__(self, who: Callable[[Item], Hashable]) -> None:
        self._who, self._size = who, 0
        self._of: dict[Hashable, deque[Ticket[Item, Answer]]] = {}  # in the order of their next turns

    def __len__(self) -> int:
        return self._size

    def put(self, ticket: Ticket[Item, Answer]) -> None:
        self._of.setdefault(self._who(ticket[0]), deque()).append(ticket)
        self._size += 1

    def take(self, most: int) -> list[Ticket[Item, Answer]]:
        taken: list[Ticket[Item, Answer]] = []
        shared = len(self._of) > 1  # who comes behind this batch waits for all of it
        while self._of and len(taken) < most:
            each = max((most - len(taken)) // len(self._of), 1)
            if shared:
                each = min(each, BATCH_MAX_OF_ONE)
            for who in list(islice(self._of, most - len(taken))):
                tickets = self._of.pop(who)
                taken += [tickets.popleft() for _ in range(min(each, len(tickets)))]
                if tickets:
                    self._of[who] = tickets
            if shared:
                break
        self._size -= len(taken)
        return taken


class _QueueOfWallets(_Queue[Item, Answer]):
    """A batch holds one item of each wallet: the wallets take turns, and of one wallet those who want it."""

    def __init__(self, wallet: Callable[[Item], Hashable], who: Callable[[Item], Hashable]) -> None:
        super().__init__(who)
        self._wallet = wallet
        self._wallets: dict[Hashable, dict[Hashable, deque[Ticket[Item, Answer]]]] = {}  # in the order of their next turns

    def put(self, ticket: Ticket[Item, Answer]) -> None:
        of_wallet = self._wallets.setdefault(self._wallet(ticket[0]), {})
        of_wallet.setdefault(self._who(ticket[0]), deque()).append(ticket)
        self._size += 1

    def take(self, most: int) -> list[Ticket[Item, Answer]]:
        taken: list[Ticket[Item, Answer]] = []
        for wallet in list(islice(self._wallets, most)):
            of_wallet = self._wallets.pop(wallet)
            who = next(iter(of_wallet))
            tickets = of_wallet.pop(who)
            taken.append(tickets.popleft())
            if tickets:
                of_wallet[who] = tickets
            if of_wallet:
                self._wallets[wallet] = of_wallet
        self._size -= len(taken)
        return taken


class Lanes(Generic[Item, Answer]):
    """Posts items in batches of up to BATCH_MAX, `count` batches side by side.

    `post` answers a batch in its order; `bucket` places an item in a lane. They take turns whom `who` tells apart, and each has
    half of the queue at most. Where items are `alone`, a batch has one of a `wallet` at most. A caller that goes away leaves its
    items to be posted: they are never half-known. A batch that raises `stuck` waited for something that others hold: its items
    are posted beside the lane, which goes on, those of one `wallet` together, and what is stuck again is told to come back.
    """

    def __init__(
        self,
        post: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        bucket: Callable[[Item], int],
        who: Callable[[Item], Hashable],
        count: int,
        stuck: type[Exception] | tuple[type[Exception], ...] = TimeoutError,
        wallet: Callable[[Item], Hashable] = id,
        alone: bool = False,
    ) -> None:
        self._post, self._bucket, self._stuck, self._wallet = post, bucket, stuck, wallet
        self._aside: set[asyncio.Task[None]] = set()
        self._items_aside = 0
        self._few = asyncio.Semaphore(ASIDE_AT_ONCE)
        self._who, self._waiting_of = who, Counter[Hashable]()
        self._queues: list[_Queue[Item, Answer]] = [_QueueOfWallets(wallet, who) if alone else _Queue(who) for _ in range(count)]
        self._runners: list[asyncio.Task[None] | None] = [None] * count

    async def submit(self, items: Sequence[Item], after: Callable[[], None] | None = None) -> list[Answer]:
        """Post items and answer them in order. Raises Busy, and whatever posting raised.

        `after` is called once all of them are settled, also if the caller has gone by then, or nothing was posted.
        """
        of_each = Counter(map(self._who, items))
        crowded = any(self._waiting_of[who] + n > QUEUE_MAX_OF_ONE for who, n in of_each.items())
        if not items or crowded or self.waiting + len(items) > QUEUE_MAX:
            if after is not None:
                after()
            if not items:
                return []
            raise Busy("Too much is waiting to be posted; try again in a moment.")
        self._waiting_of.update(of_each)

        def settled() -> None:
            self._waiting_of.subtract(of_each)
            for who in of_each:
                if not self._waiting_of[who]:
                    del self._waiting_of[who]
            if after is not None:
                after()

        call: _Call[Answer] = _Call(len(items), settled)
        count = len(self._queues)
        for position, item in enumerate(items):
            self._queues[self._bucket(item) % count].put((item, call, position))
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
                await self._post_batch(queue.take(BATCH_MAX))
        finally:
            self._runners[lane] = None

    async def _post_batch(self, batch: list[Ticket[Item, Answer]], aside: bool = False) -> None:
        """One bad item must not fail its neighbours, nor hold up others: nothing was posted, so it is looked for, in the items of
        each party apart, and then beside the lane in ever smaller halves."""
        try:
            answers = await self._post([item for item, _, _ in batch])
        except (ConnectionError, Busy) as error:
            for _, call, _ in batch:
                call.fail(error)
        except self._stuck:
            by_wallet: dict[Hashable, list[Ticket[Item, Answer]]] = {}
            for ticket in batch:
                by_wallet.setdefault(self._wallet(ticket[0]), []).append(ticket)
            for tickets in by_wallet.values():
                if len(by_wallet) == 1:
                    _tell_busy(tickets)
                else:
                    self._post_aside(tickets)
        except Exception as error:
            of: dict[Hashable, list[Ticket[Item, Answer]]] = {}
            for ticket in batch:
                of.setdefault(self._who(ticket[0]), []).append(ticket)
            middle = len(batch) // 2
            if len(batch) == 1:
                batch[0][1].fail(error)
            elif len(of) > 1:
                for part in of.values():
                    await self._post_batch(part, aside)
            elif aside:
                await self._post_batch(batch[:middle], aside)
                await self._post_batch(batch[middle:], aside)
            else:
                self._post_aside(batch)
        else:
            for (_, call, position), answer in zip(batch, answers, strict=True):
                call.answer(position, answer)

    def _post_aside(self, tickets: list[Ticket[Item, Answer]]) -> None:
        if self._items_aside + len(tickets) > ASIDE_MAX:
            _tell_busy(tickets)
            return
        self._items_aside += len(tickets)

        async def post() -> None:
            try:
                async with self._few:
                    await self._post_batch(tickets, aside=True)
            finally:
                self._items_aside -= len(tickets)

        task = asyncio.create_task(post(), context=Context())
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


def _tell_busy(tickets: Sequence[Ticket[Item, Answer]]) -> None:
    for _, call, _ in tickets:
        call.fail(Busy("Somebody else is at work on what this needs; try again in a moment."))
