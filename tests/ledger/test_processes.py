"""Several processes on one ledger: everything at once on few members, and totals are conserved."""

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gateway.access.scopes import CEILING
from gateway.access.tokens import Subject
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.embedded import EmbeddedPostgres
from tests.house.test_embedded import status, until
from tests.ledger.test_batches import without_deadlocks
from tests.ledger.test_model import EARN_MANY
from tests.points import CAPTURE, HOLD, RELEASE, REVERSE, TRANSFER, bob_joins, codes
from tests.world import RECORD, REDEEM, RETURN, World

OPERATIONS = 400
PROCESSES = 3
EXPECTED = {
    "INSUFFICIENT_POINTS", "RETURN_EXCEEDS_PURCHASE", "RECEIPT_UNKNOWN", "HOLD_NOT_OPEN", "CAPTURE_EXCEEDS_HOLD",
    "REVERSAL_EXCEEDS_REDEMPTION", "STATE_CONFLICT",
}  # fmt: skip


@contextmanager
def another_process(world: World, **settings: str) -> Iterator[str]:
    """A gateway on the world's database, in a process of its own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "DATABASE_URL": world.dsn, "GATEWAY_PORT": str(port), "GATEWAY_ISSUER": world.url,
        "GATEWAY_DATA_DIR": str(world.data_dir), "GATEWAY_JOBS": "holds,mature,seal", **settings,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "gateway", "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: status(f"http://127.0.0.1:{port}/readyz") == 200)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


async def tokens(world: World) -> dict[str, str]:
    """Tokens at the time of the clock on the wall, which the other processes go by."""
    database = Database(world.dsn, 2)
    await database.open()
    clock = SystemClock()
    signer = await world.signer(database, clock)
    await database.close()

    async def of(kind: str, query: str) -> dict[str, str]:
        rows: list[tuple[str, UUID]] = [(row[0], row[1]) for row in await world.sql(query)]
        return {name: signer.issue(Subject(kind, id), "test", CEILING[kind], clock.now(), strong_since=clock.now()) for name, id in rows}

    partners = await of("partner", "select code, partner_id from partner")
    return partners | await of("member", "select number, member_id from card")


class Chaos:
    """Sends one thing after the other to one of the processes, and remembers what can be used later."""

    def __init__(self, world: World, urls: list[str], tokens: dict[str, str]) -> None:
        self.http, self.named, self.urls, self.tokens = world.http, world.named, urls, tokens
        self.chance = random.Random(11)  # noqa: S311 - reproducible, not secret
        self.receipts: list[str] = []
        self.holds: list[str] = []
        self.redemptions: list[str] = []

    async def ask(self, who: str, query: str, variable: str, given: Any) -> dict[str, Any]:
        answer = await self.http.post(
            f"{self.chance.choice(self.urls)}/graphql",
            json={**await self.named(self.tokens[who], query), "variables": {variable: given}},
            headers={"Authorization": f"Bearer {self.tokens[who]}"},
        )
        body = answer.json()
        assert "errors" not in body, body
        payload: Any = next(iter(body["data"].values()))
        for each in payload if isinstance(payload, list) else [payload]:
            assert set(codes(each)) <= EXPECTED, payload
        return payload  # type: ignore[no-any-return]

    async def once(self, n: int) -> None:
        key = {"idempotencyKey": f"chaos-{n}"}
        name = self.chance.choice(["ann", "bob"])
        member, points = {"member": {"externalId": name}}, {"points": self.chance.randrange(1, 50)}
        match self.chance.randrange(9):
            case 0 | 1:
                total = {"amount": f"{self.chance.randrange(80)}.00", "currency": "USD"}
                given = {**key, **member, "receipt": f"c{n}", "occurredAt": "2026-11-01T12:00:00Z", "total": total}
                await self.ask("grocer", RECORD, "input", given)
                self.receipts.append(f"c{n}")
            case 2:
                made = await self.ask("grocer", REDEEM, "input", {**key, **member, **points, "programme": "MER"})
                if made["redemption"]:
                    self.redemptions.append(made["redemption"]["id"])
            case 3:
                made = await self.ask("grocer", HOLD, "i", {**key, **member, **points, "programme": "MER"})
                if made["hold"]:
                    self.holds.append(made["hold"]["id"])
            case 4 if self.holds:
                await self.ask("grocer", CAPTURE, "i", {**key, **points, "hold": self.chance.choice(self.holds)})
            case 5 if self.holds:
                await self.ask("grocer", RELEASE, "i", {**key, "hold": self.chance.choice(self.holds)})
            case 6 if self.receipts:
                total = {"amount": "3.00", "currency": "USD"}
                given = {
                    **key,
                    "receipt": self.chance.choice(self.receipts),
                    "occurredAt": "2026-11-02T12:00:00Z",
                    "total": total,
                }
                await self.ask("grocer", RETURN, "input", given)
            case 8:
                both = self.chance.sample(["ann", "bob"] * 3, 6)
                many = [
                    {
                        "idempotencyKey": f"chaos-{n}-{m}", "member": {"externalId": name}, "receipt": f"c{n}-{m}",
                        "occurredAt": "2026-11-01T12:00:00Z", "total": {"amount": f"{m}.00", "currency": "USD"},
                    }
                    for m, name in enumerate(both)
                ]  # fmt: skip
                await self.ask("grocer", EARN_MANY, "i", many)
                self.receipts += [f"c{n}-{m}" for m in range(6)]
            case 7:
                card = {"ann": "CARD-1", "bob": "CARD-2"}
                other = card["bob" if name == "ann" else "ann"]
                await self.ask(card[name], TRANSFER, "i", {**key, **points, "card": other, "programme": "MER"})
            case _ if self.redemptions:
                await self.ask("grocer", REVERSE, "i", {**key, **points, "redemption": self.chance.choice(self.redemptions)})


async def test_several_processes_at_once_on_two_members_conserve_every_point(world: World, server: EmbeddedPostgres) -> None:
    await bob_joins(world)
    with without_deadlocks(server), ExitStack() as stack:
        urls = [await asyncio.to_thread(stack.enter_context, another_process(world)) for _ in range(PROCESSES)]
        chaos = Chaos(world, urls, await tokens(world))
        gate = asyncio.Semaphore(24)

        async def once(n: int) -> None:
            async with gate:
                await chaos.once(n)

        await asyncio.gather(*(once(n) for n in range(OPERATIONS)))
        # The same purchase at several processes at once gets one answer and one earning.
        same = {
            "idempotencyKey": "same", "member": {"externalId": "ann"}, "receipt": "same", "occurredAt": "2026-11-01T12:00:00Z",
            "total": {"amount": "9.00", "currency": "USD"},
        }  # fmt: skip
        answers = await asyncio.gather(*(chaos.ask("grocer", RECORD, "input", same) for _ in range(12)))
        assert len({answer["earning"]["id"] for answer in answers}) == 1
    assert (await world.sql("select count(*) from purchase where receipt = 'same'"))[0][0] == 1
    assert len(chaos.redemptions) > 10
    assert await world.broken() == []


@pytest.mark.parametrize("first", ["purchases", "a gift"])
async def test_a_wallet_that_is_made_meanwhile_is_not_locked_out_of_turn(
    world: World, server: EmbeddedPostgres, first: str
) -> None:
    await bob_joins(world)
    names = {"CARD-1": "ann", "CARD-2": "bob"}
    # Wallets are locked in this order; at first the one has none.
    (lesser, new), (greater, _) = await world.sql("select number, member_id from card order by bucket, member_id")

    watcher, holder = await asyncpg.connect(world.dsn), await asyncpg.connect(world.dsn)

    async def waiting(wanted: int, unless: Callable[[], bool] = lambda: False) -> None:
        asked = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        while not unless() and await watcher.fetchval(asked) < wanted:
            await asyncio.sleep(0.01)

    with without_deadlocks(server), ExitStack() as stack:
        urls = [await asyncio.to_thread(stack.enter_context, another_process(world, GATEWAY_LANES="1")) for _ in range(2)]
        known = await tokens(world)
        one, other = (Chaos(world, [url], known) for url in urls)

        def purchases(*cards: str) -> list[dict[str, Any]]:
            return [
                {
                    "idempotencyKey": f"k{next(world.numbers)}", "member": {"externalId": names[card]},
                    "receipt": f"r{next(world.numbers)}", "occurredAt": "2026-11-01T12:00:00Z",
                    "total": {"amount": "50.00", "currency": "USD"},
                }
                for card in cards
            ]  # fmt: skip

        await one.ask("grocer", EARN_MANY, "i", purchases(greater))
        assert await world.sql("select member_id from wallet where member_id = $1", new) == []
        async with asyncio.TaskGroup() as asking:
            await holder.execute("begin")
            await holder.execute("select from wallet for update")
            if first == "purchases":
                asking.create_task(one.ask("grocer", EARN_MANY, "i", purchases(lesser, greater)))
            else:
                gift = {"idempotencyKey": "gift", "points": 3, "card": lesser, "programme": "MER"}
                asking.create_task(one.ask(greater, TRANSFER, "i", gift))
            await waiting(1)
            alone = asking.create_task(other.ask("grocer", EARN_MANY, "i", purchases(lesser)))
            await waiting(2, unless=alone.done)
            asking.create_task(other.ask("grocer", EARN_MANY, "i", purchases(lesser, greater)))
            await waiting(2)
            await holder.execute("rollback")
    await watcher.close()
    await holder.close()
    assert await world.broken() == []
