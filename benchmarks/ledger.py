"""The ledger function by itself, in batches of 1,000 over one connection."""

import os
import random
import statistics
import time
from uuid import UUID

from yardsticks import ROUNDS, row, say

from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.earning.purchases import earning_terms
from gateway.ids import new_id_in
from gateway.ledger.post import Earning, Key, Ledger, Redemption, Terms

MEMBERS = int(os.environ.get("BENCH_MEMBERS", "100000"))


async def measure_ledger(dsn: str, p: float) -> None:
    database = Database(dsn, 2)
    await database.open()
    clock = SystemClock()
    ledger = Ledger(database, clock, 1)
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

    say(f"every one of {MEMBERS:,} members gets a wallet and a lot")
    for start in range(0, MEMBERS, 1_000):
        await ledger.earn([earning(member, terms[0]) for member in members[start : start + 1_000]])
    found = []
    for _ in range(ROUNDS):
        batches = [[earning(chance.choice(members), terms[0]) for _ in range(1_000)] for _ in range(20)]
        began = time.perf_counter()
        for batch in batches:
            answers = await ledger.earn(batch)
            assert all(answer.transaction_id for answer in answers)
        found.append(20_000 / (time.perf_counter() - began))
        say(f"earnings {found[-1]:,.0f}/s")
    per_second = statistics.median(found)
    row("earnings in batches of 1,000, one connection", "4 P", "8 P", f"{per_second:,.0f}/s", f"{per_second / p:.1f} P")

    rich = members[:20_000]
    say("five lots a wallet")
    for on in terms[1:5]:
        for start in range(0, len(rich), 1_000):
            await ledger.earn([earning(member, on) for member in rich[start : start + 1_000]])
    found = []
    for round_ in range(ROUNDS):
        spent = [
            Redemption(
                Key(terms[0].partner_id, f"redemption-{round_}-{n}", b"x" * 32),
                Terms(terms[0].partner_id, terms[0].programme_id, terms[0].contract_id, "USD", today.replace(day=1),
                      terms[0].issue_price, day=today),
                member, member, clock.now(), 5, None,
            )
            for n, member in enumerate(chance.sample(rich, 10_000))
        ]  # fmt: skip
        began = time.perf_counter()
        for start in range(0, len(spent), 1_000):
            await ledger.redeem(spent[start : start + 1_000])
        found.append(len(spent) / (time.perf_counter() - began))
        say(f"redemptions {found[-1]:,.0f}/s")
    per_second = statistics.median(found)
    row("redemptions likewise, five lots a wallet", "2 P", "4 P", f"{per_second:,.0f}/s", f"{per_second / p:.1f} P")
    await database.close()
