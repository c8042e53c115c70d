"""Batches: many callers at once, lanes, and the equality of a batch with single calls."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gateway.database import failures
from gateway.embedded import EmbeddedPostgres
from gateway.points import MAX_POINTS
from tests.credit.test_credit import pay, set_credit
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

    class Noted(failures.LostRace):
        def __init__(self, text: str) -> None:
            said.append(text)
            super().__init__(text)

    monkeypatch.setattr(failures, "LostRace", Noted)
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


@contextmanager
def without_deadlocks(server: EmbeddedPostgres) -> Iterator[None]:
    """Deadlocks are retried, and nobody would see one; the server's log tells of it, and how it came about."""
    begin = server.log_path.stat().st_size
    yield
    _, found, detail = server.log_path.read_bytes()[begin:].decode().partition("deadlock detected")
    assert not found, detail[:5_000]


async def test_a_limit_and_a_payment_at_once_wait_for_each_other_in_no_circle(world: World, server: EmbeddedPostgres) -> None:
    await set_credit(world, "20.00")
    till = await asyncpg.connect(world.dsn)
    with without_deadlocks(server):
        await till.execute("begin")
        await till.execute("select from credit_slot where slot = 3 for update")
        paid = asyncio.create_task(pay(world, "1.00", "p"))
        await waits(world, 1)
        limited = asyncio.create_task(set_credit(world, "30.00"))
        await waits(world, 2)
        await till.execute("rollback")
        assert codes(await paid) == codes(await limited) == []
    await till.close()
    assert [tuple(row) for row in await world.sql("select limit_minor, last_paid_minor from partner_credit")] == [(3_000, 100)]
    assert await world.broken() == []


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
