"""Several processes on one ledger: everything at once on few members, and totals are conserved."""

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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
from gateway.ids import new_id_in
from tests.house.test_embedded import status, until
from tests.ledger.test_batches import waits, without_deadlocks
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

    holder = await asyncpg.connect(world.dsn)
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
            await holder.execute("begin; select from wallet for update")
            if first == "purchases":
                asking.create_task(one.ask("grocer", EARN_MANY, "i", purchases(lesser, greater)))
            else:
                gift = {"idempotencyKey": "gift", "points": 3, "card": lesser, "programme": "MER"}
                asking.create_task(one.ask(greater, TRANSFER, "i", gift))
            await waits(world, 1)
            alone = asking.create_task(other.ask("grocer", EARN_MANY, "i", purchases(lesser)))
            second = asyncio.create_task(waits(world, 2))
            await asyncio.wait([alone, second], return_when=asyncio.FIRST_COMPLETED)
            second.cancel()
            asking.create_task(other.ask("grocer", EARN_MANY, "i", purchases(lesser, greater)))
            await waits(world, 2)
            await holder.execute("rollback")
    await holder.close()
    assert await world.broken() == []


@pytest.mark.parametrize("crossed", ["receipt", "idempotencyKey"])
async def test_what_two_gateways_get_crosswise_is_posted_once_and_neither_waits_in_a_circle(
    world: World, server: EmbeddedPostgres, crossed: str
) -> None:
    """Each posts to members of its own, so that the order of wallets does not help; all are in one bucket, where keys meet."""
    await world.sql(
        """with m as (insert into member (bucket, member_id, since) select 5, unnest($1::uuid[]), now() returning member_id),
                x as (insert into external_id (partner_id, external_id, bucket, membership_id)
                      select p.partner_id, m.member_id, 5, m.member_id from m, partner p where p.code = 'grocer' returning *)
           insert into membership (bucket, membership_id, member_id, partner_id, external_id, since)
           select 5, membership_id, membership_id, partner_id, external_id, now() from x""",
        [new_id_in(5) for _ in range(800)],
    )
    found = await world.sql("select external_id from membership where bucket = 5 and membership_id = member_id order by member_id")

    def purchases(odd: int, turn: int) -> list[dict[str, Any]]:
        shared = [f"{turn}-{n:03}" for n in range(400)]
        return [
            {
                "idempotencyKey": f"k{turn}-{odd}-{n}", "receipt": f"r{turn}-{odd}-{n}", "member": {"externalId": name},
                "occurredAt": "2026-11-01T12:00:00Z", "total": {"amount": "1.00", "currency": "USD"},
                **({crossed: each} if turn else {}),  # at first there are no wallets
            }
            for n, ((name,), each) in enumerate(zip(found[odd::2], shared[::-1] if odd else shared, strict=True))
        ]  # fmt: skip

    await world.sql("create function dawdle() returns trigger language plpgsql as 'begin perform pg_sleep(0.001); return new; end'")
    await world.sql("create trigger dawdle before insert on idempotency for each row execute function dawdle()")
    holder = await asyncpg.connect(world.dsn)
    refused = {"receipt": "RECEIPT_ALREADY_POSTED", "idempotencyKey": "IDEMPOTENCY_KEY_REUSED"}[crossed]
    with without_deadlocks(server), ExitStack() as stack:
        urls = [await asyncio.to_thread(stack.enter_context, another_process(world, GATEWAY_LANES="1")) for _ in range(2)]
        token = (await tokens(world))["grocer"]

        async def post(url: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
            asked = {"query": EARN_MANY, "variables": {"i": given}}
            answer = await world.http.post(f"{url}/graphql", json=asked, headers={"Authorization": f"Bearer {token}"}, timeout=30)
            return answer.json()["data"]["recordPurchases"]  # type: ignore[no-any-return]

        for odd, url in enumerate(urls):
            assert [codes(each) for each in await post(url, purchases(odd, 0))] == [[]] * 400
        for turn in (1, 2):
            await holder.execute("begin; select from wallet for update")
            asking = asyncio.gather(*(post(url, purchases(odd, turn)) for odd, url in enumerate(urls)))
            await waits(world, 2)
            await holder.execute("rollback")
            answers = [tuple(codes(each)) for many in await asking for each in many]
            assert Counter(answers) == {(): 400, (refused,): 400}
    await holder.close()
    assert await world.transactions() == 1_600
    assert await world.broken() == []
