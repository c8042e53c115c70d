"""The ledger function by itself, in batches of 1,000 over one connection.

The connection is kept busy as the gateway keeps it: one lane's batch is made ready while the other's is posted.
"""

import asyncio
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec
from yardsticks import Yardstick, say

from gateway.clock import SystemClock
from gateway.coalition.catalogue import Coalition, read_coalition
from gateway.database import Database
from gateway.earning.record import earning_terms
from gateway.ids import new_id_in
from gateway.ledger.items import Answer, Earning, Key, Redemption, Terms
from gateway.ledger.post import Ledger

MEMBERS = int(os.environ.get("BENCH_MEMBERS", "100000"))
LANES = 2
BATCH = 1_000

Item = TypeVar("Item", Earning, Redemption)


async def posted_a_second(post: Callable[[Sequence[Item]], Awaitable[list[Answer]]], lanes: Sequence[Sequence[Item]]) -> float:
    """Post the items of each lane in batches, all lanes at once; answers how many a second."""

    async def run(items: Sequence[Item]) -> None:
        for start in range(0, len(items), BATCH):
            answers = await post(items[start : start + BATCH])
            assert all(answer.transaction_id for answer in answers)

    began = time.perf_counter()
    await asyncio.gather(*map(run, lanes))
    return sum(map(len, lanes)) / (time.perf_counter() - began)


def measure_ledger(dsn: str, p: Yardstick) -> None:
    with asyncio.Runner() as runner:
        database = Database(dsn, 1)
        runner.run(database.open())
        books = Books(database, runner.run(coalition_of(database)))
        say(f"every one of {MEMBERS:,} members gets a wallet and a lot")
        runner.run(books.fill(books.members, books.terms[0]))
        p.in_turns("earnings in batches of 1,000, one connection", "4", "8", lambda: runner.run(books.earn_at_random()))
        say("five lots a wallet")
        for on in books.terms[1:5]:
            runner.run(books.fill(books.rich, on))
        p.in_turns("redemptions likewise, five lots a wallet", "2", "4", lambda: runner.run(books.redeem_at_random()))
        runner.run(database.close())


async def coalition_of(database: Database) -> Coalition:
    async with database.reading() as tx:
        return await read_coalition(tx)


class Books:
    """The ledger, and items for it, each with a key and a receipt of its own."""

    def __init__(self, database: Database, coalition: Coalition) -> None:
        self._clock = SystemClock()
        self._ledger = Ledger(database, self._clock, LANES)
        self._today = coalition.day_of(self._clock.now())
        self.terms = [earning_terms(coalition, contracts[0], self._today) for contracts in coalition.contracts.values()]
        self._chance = random.Random(1)  # noqa: S311 - reproducible, not secret
        self._numbers = itertools.count()
        self.members = [new_id_in(n % 256) for n in range(MEMBERS)]
        self.rich = self.members[:20_000]

    async def fill(self, members: Sequence[UUID], on: Terms) -> None:
        """A purchase for each of the members."""
        for start in range(0, len(members), BATCH):
            await self._ledger.earn([self._earning(member, on) for member in members[start : start + BATCH]])

    async def earn_at_random(self) -> float:
        """Earnings a second: twenty-five batches a lane."""
        lanes = [self.members[lane::LANES] for lane in range(LANES)]  # the n-th member is in bucket n, and that in lane n
        items = [[self._earning(self._chance.choice(mine), self.terms[0]) for _ in range(25 * BATCH)] for mine in lanes]
        return await posted_a_second(self._ledger.earn, items)

    async def redeem_at_random(self) -> float:
        """Redemptions a second: five batches a lane."""
        lanes = [self.rich[lane::LANES] for lane in range(LANES)]
        items = [[self._redemption(member) for member in self._chance.sample(mine, 5 * BATCH)] for mine in lanes]
        return await posted_a_second(self._ledger.redeem, items)

    def _earning(self, member: UUID, on: Terms) -> Earning:
        number = next(self._numbers)
        key = Key(on.partner_id, f"earning-{number}", self._chance.randbytes(32))
        points = self._chance.randint(1, 90)
        return Earning(key, on, member, member, self._clock.now(), points, f"r-{number}", None, points * 100, None)

    def _redemption(self, member: UUID) -> Redemption:
        on = msgspec.structs.replace(self.terms[0], month=self._today.replace(day=1), expires_on=None, day=self._today)
        key = Key(on.partner_id, f"redemption-{next(self._numbers)}", b"x" * 32)
        return Redemption(key, on, member, member, self._clock.now(), 5, None)
