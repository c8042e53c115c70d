"""Batches: many callers at once, lanes, and the equality of a batch with single calls."""

import asyncio
import random

from gateway.batching import Busy, Lanes
from tests.world import World

MANY = "mutation($input: [PurchaseInput!]!) { recordPurchases(input: $input) { earning { points } errors { code } } }"


async def test_a_batch_equals_single_calls(world: World) -> None:
    enrol = "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }"
    await world.ask("grocer", enrol, i={"externalId": "bob"})
    inputs = [world.purchase(f"{n % 7}.50", receipt=f"r{n % 18}") for n in range(20)]
    batch = (await world.ask("grocer", MANY, input=inputs))["recordPurchases"]
    again = [
        {**i, "idempotencyKey": f"s-{i['idempotencyKey']}", "receipt": f"s-{i['receipt']}", "member": {"externalId": "bob"}}
        for i in inputs
    ]
    single = [(await world.ask("grocer", MANY, input=[i]))["recordPurchases"][0] for i in again]
    assert batch == single
    assert (await world.wallet())["available"] == (await world.wallet(external_id="bob"))["available"]
    assert await world.broken() == []


async def test_everything_at_once_on_few_members_neither_deadlocks_nor_loses_a_point(world: World) -> None:
    chance = random.Random(7)  # noqa: S311 - reproducible, not secret
    await world.record("500.00", receipt="start")

    async def something(number: int) -> None:
        what = chance.random()
        if what < 0.5:
            await world.record(f"{number % 30}.00", who=chance.choice(["grocer", "fuel"]), receipt=f"n{number}")
        elif what < 0.8:
            await world.redeem(chance.randint(1, 40), who=chance.choice(["grocer", "fuel"]))
        else:
            await world.give_back("start", total={"amount": "1.00", "currency": "USD"})

    await asyncio.gather(*(something(number) for number in range(300)))
    assert await world.broken() == []
    moved = (await world.sql("select coalesce(sum(points), 0)::bigint from entry"))[0][0]
    wallet = await world.wallet()
    assert wallet["available"] - wallet["owed"] == moved


async def test_items_that_claim_the_same_never_share_a_batch_and_keep_their_order() -> None:
    posted: list[list[tuple[str, int]]] = []

    async def post(items: list[tuple[str, int]]) -> list[int]:
        posted.append(items)
        await asyncio.sleep(0)
        return [n for _, n in items]

    lanes = Lanes[tuple[str, int], int](post, bucket=lambda i: 0, claims=lambda i: (i[0],), count=1)
    items = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 5), ("b", 6)]
    assert await lanes.submit(items) == [1, 2, 3, 4, 5, 6]
    assert posted == [[("a", 1), ("b", 2), ("c", 4)], [("a", 3), ("b", 6)], [("a", 5)]]


async def test_one_bad_item_fails_alone_and_a_caller_who_left_leaves_its_item_posted() -> None:
    posted: list[int] = []
    go = asyncio.Event()

    async def post(items: list[int]) -> list[int]:
        await go.wait()
        if -1 in items:
            raise ValueError("bad item")
        posted.extend(items)
        return items

    lanes = Lanes[int, int](post, bucket=lambda i: 0, claims=lambda i: (), count=1)
    first = asyncio.create_task(lanes.submit([0]))
    await asyncio.sleep(0)
    bad, good, gone = (asyncio.create_task(lanes.submit([n])) for n in (-1, 2, 3))
    await asyncio.sleep(0)
    gone.cancel()
    go.set()
    results = await asyncio.gather(first, bad, good, gone, return_exceptions=True)
    assert results[0] == [0]
    assert isinstance(results[1], ValueError)
    assert results[2] == [2]
    assert isinstance(results[3], asyncio.CancelledError)
    await lanes.drain()
    assert posted == [0, 2, 3]


async def test_a_queue_that_is_full_says_busy_and_takes_nothing() -> None:
    never = asyncio.Event()

    async def post(items: list[int]) -> list[int]:
        await never.wait()
        return items

    lanes = Lanes[int, int](post, bucket=lambda i: 0, claims=lambda i: (), count=1)
    waiting = asyncio.create_task(lanes.submit(list(range(20_000))))
    await asyncio.sleep(0)
    try:
        await lanes.submit(list(range(20_001)))
    except Busy:
        pass
    else:
        raise AssertionError("expected Busy")
    never.set()
    assert len(await waiting) == 20_000
