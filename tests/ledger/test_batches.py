"""Batches: many callers at once, lanes, and the equality of a batch with single calls."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pytest

from gateway import batching, database
from gateway.batching import ASIDE_MAX, Busy, Claims, Lanes, OneAtATime
from gateway.points import MAX_POINTS
from tests.credit.test_credit import set_credit
from tests.points import codes
from tests.world import RECORD, World

ENROL = "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }"
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


class Wanted(NamedTuple):
    """An item of a lane: which wallet it is of, and who wants it."""

    wallet: str
    who: str
    number: int


def in_turns(posted: list[list[int]]) -> Lanes[Wanted, int]:
    """A lane whose batches take from each wallet once."""

    async def post(items: Sequence[Wanted]) -> list[int]:
        posted.append([item.number for item in items])
        await asyncio.sleep(0)
        return posted[-1]

    return Lanes(post, bucket=lambda i: 0, count=1, wallet=lambda i: i.wallet, who=lambda i: i.who, alone=True)


async def test_items_of_one_wallet_never_share_a_batch_and_keep_their_order() -> None:
    posted: list[list[int]] = []
    items = [Wanted(wallet, "grocer", n) for n, wallet in enumerate("abacab")]
    assert await in_turns(posted).submit(items) == [0, 1, 2, 3, 4, 5]
    assert posted == [[0, 1, 3], [2, 5], [4]]


async def test_who_wants_a_thousand_of_one_wallet_holds_up_nobody_who_wants_it_too() -> None:
    posted: list[list[int]] = []
    lanes = in_turns(posted)
    many = asyncio.create_task(lanes.submit([Wanted("a", "grocer", n) for n in range(1_000)]))
    await asyncio.sleep(0)
    ours = [Wanted("a", "fuel", 1_000), Wanted("a", "fuel", 1_001), Wanted("b", "fuel", 1_002)]
    assert await lanes.submit(ours) == [1_000, 1_001, 1_002]
    assert len(posted) <= 6
    assert await many == list(range(1_000))
    assert [n for batch in posted for n in batch if n < 1_000] == list(range(1_000))
    assert lanes.waiting == 0


async def test_one_partys_thousands_leave_room_in_the_queue_and_in_every_batch_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[list[Wanted]] = []

    async def post(items: Sequence[Wanted]) -> list[int]:
        posted.append(list(items))
        await asyncio.sleep(0)
        return [item.number for item in items]

    lanes = Lanes[Wanted, int](post, bucket=lambda i: 0, count=1, who=lambda i: i.who)
    many = asyncio.create_task(lanes.submit([Wanted("a", "grocer", n) for n in range(10_000)]))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await lanes.submit([Wanted("a", "grocer", 10_000)])
    ours = [Wanted("a", who, n) for who in ("fuel", "airline") for n in range(300)]
    assert await lanes.submit(ours) == [*range(300), *range(300)]
    assert len(posted) <= 3
    assert await many == list(range(10_000))
    assert [item.number for batch in posted for item in batch if item.who == "grocer"] == list(range(10_000))
    assert max(map(len, posted)) == 1_000
    assert await lanes.submit([Wanted("a", "grocer", 10_000)]) == [10_000]


async def test_taking_a_batch_costs_what_it_takes_however_much_waits() -> None:
    looked_at: Counter[str] = Counter()

    def wallet(item: int) -> str:
        looked_at["wallet"] += 1
        return "a"

    async def post(items: Sequence[int]) -> list[int]:
        return list(items)

    lanes = Lanes[int, int](post, bucket=lambda i: 0, count=1, wallet=wallet, who=lambda i: "grocer", alone=True)
    assert len(await lanes.submit(range(2_000))) == 2_000
    assert looked_at["wallet"] <= 2 * 2_000


async def test_one_bad_item_fails_alone_and_a_caller_who_left_leaves_its_item_posted() -> None:
    posted: list[int] = []
    go = asyncio.Event()

    async def post(items: list[int]) -> list[int]:
        await go.wait()
        if -1 in items:
            raise ValueError("bad item")
        posted.extend(items)
        return items

    lanes = Lanes[int, int](post, bucket=lambda i: 0, count=1)
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

    lanes = Lanes[int, int](post, bucket=lambda i: 0, count=1)
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


async def members(world: World, count: int) -> None:
    """m0, m1 and so on join, with wallets in several lanes."""
    await world.ask("grocer", ENROL, i=[{"externalId": f"m{n}"} for n in range(count)])


async def outcomes(world: World, inputs: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [codes(each) for each in (await world.ask("grocer", MANY, input=inputs))["recordPurchases"]]


async def test_a_receipt_of_two_members_goes_to_the_one_that_comes_first_in_the_batch(world: World) -> None:
    await members(world, 40)
    inputs = [world.purchase("1.00", receipt=f"r{n // 2}", member={"externalId": f"m{n}"}) for n in range(40)]
    assert await outcomes(world, inputs) == [[], ["RECEIPT_ALREADY_POSTED"]] * 20
    assert await world.transactions() == 20
    assert await world.broken() == []


async def test_credit_goes_to_those_that_come_first_in_the_batch(world: World) -> None:
    await members(world, 8)
    await set_credit(world, "0.90")
    inputs = [world.purchase("30.00", member={"externalId": f"m{n}"}) for n in range(8)]
    assert await outcomes(world, inputs) == [[]] * 3 + [["CREDIT_LIMIT_REACHED"]] * 5
    assert await world.broken() == []


async def test_what_waits_for_a_receipt_keeps_its_turn_at_the_credit(world: World) -> None:
    await members(world, 3)
    await set_credit(world, "1.00")
    refused, second, third = (world.purchase(f"{n}.00", member={"externalId": f"m{i}"}) for i, n in enumerate((150, 60, 80)))
    second["receipt"] = refused["receipt"]
    assert await outcomes(world, [refused, second, third]) == [["CREDIT_LIMIT_REACHED"], [], ["CREDIT_LIMIT_REACHED"]]
    assert await world.broken() == []


async def test_what_a_full_wallet_refuses_takes_no_room_from_what_comes_after_it(world: World) -> None:
    await world.record("1.00")
    await world.sql("update wallet set available = $1", MAX_POINTS - 10)
    inputs = [world.purchase("100.00"), world.purchase("5.00"), world.purchase("6.00"), world.purchase("5.00")]
    assert await outcomes(world, inputs) == [["AMOUNT_NOT_ACCEPTED"], [], ["AMOUNT_NOT_ACCEPTED"], []]
    assert (await world.record("1.00"))["errors"][0]["path"] == ["total", "amount"]
    assert await world.available() == MAX_POINTS


@pytest.mark.parametrize("turned", [False, True])
async def test_a_key_of_somebody_unknown_and_of_a_member_is_answered_as_one_call_after_the_other(world: World, turned: bool) -> None:
    def two(key: str) -> list[dict[str, Any]]:
        unknown = world.purchase("10.00", member={"externalId": "nobody"}, idempotencyKey=key)
        known = world.purchase("10.00", idempotencyKey=key)
        return [known, unknown] if turned else [unknown, known]

    batch = await outcomes(world, two("k"))
    singly = [(await outcomes(world, [each]))[0] for each in two("l")]
    assert batch == singly == ([[], ["IDEMPOTENCY_KEY_REUSED"]] if turned else [["MEMBER_UNKNOWN"], []])
    assert await world.transactions() == 2


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The races that postings lost by a deadlock or a serialization failure."""
    said: list[str] = []

    class Noted(database.LostRace):
        def __init__(self, text: str) -> None:
            said.append(text)
            super().__init__(text)

    monkeypatch.setattr(database, "LostRace", Noted)
    return said


async def test_purchases_and_returns_of_a_partner_on_credit_wait_for_each_other_in_no_circle(world: World, lost: list[str]) -> None:
    await set_credit(world, "100000.00")
    for n in range(20):
        await world.record("10.00", receipt=f"r{n}")
    taken = {"amount": "1.00", "currency": "USD"}
    for start in range(0, 20, 5):
        back = [world.give_back(f"r{n}", total=taken) for n in range(start, start + 5)]
        answers = await asyncio.gather(*back, *(world.record("1.00") for _ in range(5)))
        assert [codes(each) for each in answers] == [[]] * 10
    assert lost == []
    assert await world.broken() == []


@asynccontextmanager
async def locked_wallet(world: World) -> AsyncIterator[None]:
    """Somebody else holds Ann's wallet."""
    ann: UUID = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    connection = await asyncpg.connect(world.dsn)
    try:
        await connection.execute("begin")
        await connection.fetch("select from wallet where member_id = $1 for update", ann)
        yield
    finally:
        await connection.close()


async def test_the_first_postings_of_a_month_wait_for_each_other_in_no_circle(world: World, lost: list[str]) -> None:
    await world.record("500.00")
    world.clock.set(world.clock.now() + timedelta(days=31))
    world.tokens.clear()
    for partner in ("grocer", "fuel"):
        await world.token(partner)
    async with locked_wallet(world):
        spent = asyncio.create_task(world.redeem(1))
        await waits(world, 1)
        earned = asyncio.create_task(world.record("5.00"))
        await waits(world, 2)
    assert codes(await spent) == codes(await earned) == []
    assert lost == []
    assert await world.available() == 504


async def waits(world: World, count: int) -> None:
    """Until so many statements of the gateway wait for a lock."""
    async with asyncio.timeout(10):
        await _waits(world, count)


async def _waits(world: World, count: int) -> None:
    while (await world.sql(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ))[0][0] < count:  # fmt: skip
        await asyncio.sleep(0.01)


async def test_a_wallet_that_somebody_else_holds_holds_nobody_else_up(world: World) -> None:
    await members(world, 12)
    await world.record("10.00")
    held = world.purchase("1.00")
    async with locked_wallet(world):
        stuck = asyncio.create_task(world.post("grocer", RECORD, input=held))
        await waits(world, 1)
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(world.record("2.00", member={"externalId": f"m{n}"}) for n in range(12)))
        assert [codes(each) for each in answers] == [[]] * 12
        busy = await stuck
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
    assert await world.available() == 10
    for _ in range(2):
        assert (await world.ask("grocer", RECORD, input=held))["recordPurchase"]["errors"] == []
    assert await world.available() == 11
    assert await world.broken() == []


async def test_who_comes_behind_many_that_are_stuck_waits_as_for_one(world: World) -> None:
    await members(world, 12)
    await world.record("10.00")
    async with locked_wallet(world):
        stuck = [asyncio.create_task(world.post("grocer", RECORD, input=world.purchase("1.00"))) for _ in range(60)]
        await waits(world, 1)
        async with asyncio.timeout(12):
            answers = await asyncio.gather(*(world.record("2.00", member={"externalId": f"m{n}"}) for n in range(12)))
            busy = await asyncio.gather(*stuck)
    assert [codes(each) for each in answers] == [[]] * 12
    assert {answer.status_code for answer in busy} == {429}
    assert await world.transactions() == 13


async def test_so_many_wait_their_turn_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CLAIMANTS_MAX", 2)
    one_at_a_time, let_go = OneAtATime(), asyncio.Event()
    done: list[int] = []

    async def take(n: int) -> None:
        async with one_at_a_time("receipt"):
            await let_go.wait()
            done.append(n)

    taking = [asyncio.create_task(take(n)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await take(3)
    async with one_at_a_time("another"):
        pass
    let_go.set()
    await asyncio.gather(*taking)
    assert done == [0, 1, 2]


async def test_what_is_stuck_is_bounded_and_counted_as_waiting() -> None:
    class Held(Exception):
        pass

    let_go = asyncio.Event()

    async def post(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise Held
        await let_go.wait()
        return list(items)

    lanes = Lanes[int, int](post, bucket=lambda i: 0, count=1, stuck=Held)
    calls = [asyncio.create_task(lanes.submit(list(range(1_000)))) for _ in range(4)]
    for refused in calls[2:]:
        with pytest.raises(Busy):
            await refused
    assert lanes.waiting == ASIDE_MAX
    assert not any(call.done() for call in calls[:2])
    let_go.set()
    assert [len(each) for each in await asyncio.gather(*calls[:2])] == [1_000, 1_000]
    await lanes.drain()
    assert lanes.waiting == 0


async def test_so_many_wait_for_one_key_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CLAIMANTS_MAX", 2)
    claims = Claims()
    await claims.claim(["k"])
    waiting = [asyncio.create_task(claims.claim(["k", n])) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await claims.claim(["k"])
    await claims.claim(["other"])
    claims.free(["k"])
    await waiting[0]
    claims.free(["k", 0])
    await waiting[1]
    claims.free(["k", 1])
    await claims.claim(["k"])
