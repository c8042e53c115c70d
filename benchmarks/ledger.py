"""The ledger function by itself, in batches of 1,000 over one connection.

The connection is kept busy as the gateway keeps it: one lane's batch is made ready while the other's is posted.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec
from yardsticks import ROUNDS, row, say

from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.earning.purchases import earning_terms
from gateway.ids import new_id_in
from gateway.ledger.post import Answer, Earning, Key, Ledger, Redemption, Terms

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


async def measure_ledger(dsn: str, p: float) -> None:
    database = Database(dsn, 1)
    await database.open()
    clock = SystemClock()
    ledger = Ledger(database, clock, LANES)
    async with database.reading() as tx:
        coalition = await read_coalition(tx)
    contracts = [each[0] for each in coalition.contracts.values()]
    today = coalition.day_of(clock.now())
    terms = [earning_terms(coalition, contract, today) for contract in contracts]
    chance = random.Random(1)  # noqa: S311 - reproducible, not secret
    members = [new_id_in(n % 256) for n in range(MEMBERS)]
    number = 0

    def earning(member: UUID, on: Terms) -> Earning:
        nonlocal number
        number += 1
        key = Key(on.partner_id, f"earning-{number}", chance.randbytes(32))
        points = chance.randint(1, 90)
        return Earning(key, on, member, member, clock.now(), points, f"r-{number}", None, points * 100, None)

    def redemption(member: UUID, name: str) -> Redemption:
        on = msgspec.structs.replace(terms[0], month=today.replace(day=1), expires_on=None, day=today)
        return Redemption(Key(on.partner_id, f"redemption-{name}", b"x" * 32), on, member, member, clock.now(), 5, None)

    say(f"every one of {MEMBERS:,} members gets a wallet and a lot")
    for start in range(0, MEMBERS, BATCH):
        await ledger.earn([earning(member, terms[0]) for member in members[start : start + BATCH]])
    of_lanes = [members[lane::LANES] for lane in range(LANES)]  # the n-th member is in bucket n, and that in lane n
    found = []
    for _ in range(ROUNDS):
        earned = [[earning(chance.choice(mine), terms[0]) for _ in range(10 * BATCH)] for mine in of_lanes]
        found.append(await posted_a_second(ledger.earn, earned))
        say(f"earnings {found[-1]:,.0f}/s")
    per_second = statistics.median(found)
    row("earnings in batches of 1,000, one connection", "4 P", "8 P", f"{per_second:,.0f}/s", f"{per_second / p:.1f} P")

    rich = members[:20_000]
    say("five lots a wallet")
    for on in terms[1:5]:
        for start in range(0, len(rich), BATCH):
            await ledger.earn([earning(member, on) for member in rich[start : start + BATCH]])
    found = []
    for round_ in range(ROUNDS):
        spent = [
            [redemption(member, f"{round_}-{lane}-{n}") for n, member in enumerate(chance.sample(rich[lane::LANES], 5 * BATCH))]
            for lane in range(LANES)
        ]
        found.append(await posted_a_second(ledger.redeem, spent))
        say(f"redemptions {found[-1]:,.0f}/s")
    per_second = statistics.median(found)
    row("redemptions likewise, five lots a wallet", "2 P", "4 P", f"{per_second:,.0f}/s", f"{per_second / p:.1f} P")
    await database.close()
