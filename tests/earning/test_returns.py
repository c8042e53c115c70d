"""Returns: whole, by amount, by line, after spending, and never more than was bought."""

import asyncio

import asyncpg
import msgspec
import pytest

from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.earning.purchases import purchases_by_receipt
from gateway.earning.record import earning_terms
from gateway.ledger.items import Key, Return
from gateway.ledger.post import Ledger
from tests.world import RETURN, World


async def test_a_whole_return_takes_every_point_back(world: World) -> None:
    await world.record("25.50", receipt="r")
    answer = await world.give_back("r")
    assert answer["errors"] == []
    assert (answer["purchaseReturn"]["points"], answer["purchaseReturn"]["owed"]) == (-25, 0)
    assert answer["purchaseReturn"]["total"]["amount"] == "25.50"
    assert await world.available() == 0
    assert await world.broken() == []


async def test_parts_leave_the_points_that_the_rest_would_have_brought(world: World) -> None:
    await world.record("10.50", receipt="r")
    assert (await world.give_back("r", total={"amount": "0.50", "currency": "USD"}))["purchaseReturn"]["points"] == 0
    assert (await world.give_back("r", total={"amount": "0.01", "currency": "USD"}))["purchaseReturn"]["points"] == -1
    assert (await world.give_back("r"))["purchaseReturn"]["points"] == -9
    assert await world.available() == 0
    assert await world.broken() == []


async def test_a_return_larger_than_what_is_left_is_refused_and_takes_nothing(world: World) -> None:
    await world.record("10.00", receipt="r")
    await world.give_back("r", total={"amount": "4.00", "currency": "USD"})
    answer = await world.give_back("r", total={"amount": "6.01", "currency": "USD"})
    assert [e["code"] for e in answer["errors"]] == ["RETURN_EXCEEDS_PURCHASE"]
    assert await world.available() == 6
    await world.give_back("r")
    assert [e["code"] for e in (await world.give_back("r"))["errors"]] == ["RETURN_EXCEEDS_PURCHASE"]
    assert await world.available() == 0


async def test_a_return_of_an_unknown_receipt_or_of_another_partner_is_refused(world: World) -> None:
    await world.record("10.00", receipt="r")
    assert [e["code"] for e in (await world.give_back("nothing"))["errors"]] == ["RECEIPT_UNKNOWN"]
    assert [e["code"] for e in (await world.give_back("r", who="fuel"))["errors"]] == ["RECEIPT_UNKNOWN"]
    assert await world.available() == 10


async def test_points_already_spent_are_owed_and_later_earnings_repay_them_first(world: World) -> None:
    await world.record("10.00", receipt="r")
    await world.redeem(8)
    assert (await world.give_back("r"))["purchaseReturn"]["owed"] == 8
    wallet = await world.wallet()
    assert (wallet["available"], wallet["owed"]) == (0, 8)
    assert await world.broken() == []
    await world.record("5.00")
    await world.record("6.00", who="fuel")
    wallet = await world.wallet()
    assert (wallet["available"], wallet["owed"]) == (0, 0)
    assert await world.broken() == []


async def test_where_debt_is_not_allowed_a_return_after_spending_is_refused(world: World) -> None:
    await world.sql("update programme set refund_policy = 'within_balance'")
    await world.record("10.00", receipt="r")
    await world.redeem(8)
    answer = await world.give_back("r")
    assert [e["code"] for e in answer["errors"]] == ["INSUFFICIENT_POINTS"]
    wallet = await world.wallet()
    assert (wallet["available"], wallet["owed"]) == (2, 0)
    assert await world.broken() == []


async def test_lines_come_back_once_each(world: World) -> None:
    lines = [{"sku": "milk", "amount": "4.00"}, {"sku": "bread", "amount": "6.00"}]
    await world.record("10.00", receipt="r", lines=lines)
    answer = await world.give_back("r", lines=[lines[0]])
    assert (answer["purchaseReturn"]["points"], answer["purchaseReturn"]["total"]["amount"]) == (-4, "4.00")
    again = await world.give_back("r", lines=[lines[0]])
    assert [e["code"] for e in again["errors"]] == ["RETURN_EXCEEDS_PURCHASE"]
    assert "milk" in again["errors"][0]["message"]
    assert await world.available() == 6


async def test_the_same_return_at_once_is_taken_once(world: World) -> None:
    await world.record("10.00", receipt="r")
    input = {"idempotencyKey": "k", "receipt": "r", "occurredAt": world.clock.now().isoformat()}
    answers = await asyncio.gather(*(world.ask("grocer", RETURN, input=input) for _ in range(6)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["returnPurchase"]["errors"] == []
    assert await world.transactions() == 2
    again = await world.ask("grocer", RETURN, input=input)
    assert again == answers[0]


async def test_parts_posted_at_once_never_come_to_more_than_the_purchase(world: World) -> None:
    await world.record("10.00", receipt="r")
    parts = [world.give_back("r", total={"amount": "3.00", "currency": "USD"}) for _ in range(6)]
    answers = await asyncio.gather(*parts)
    assert sum(answer["errors"] == [] for answer in answers) == 3
    assert await world.available() == 1
    assert await world.broken() == []


async def test_many_parts_at_once_are_all_taken_while_there_is_something_left(world: World) -> None:
    await world.record("100.00", receipt="r")
    parts = [world.give_back("r", total={"amount": "1.00", "currency": "USD"}) for _ in range(60)]
    answers = await asyncio.gather(*parts)
    assert all(answer["errors"] == [] for answer in answers)
    assert await world.available() == 40
    assert await world.broken() == []


@pytest.mark.parametrize(("amount_minor", "points"), [(401, 4), (400, 5)])
async def test_more_than_was_bought_never_comes_back_whatever_the_caller_worked_out(
    world: World, amount_minor: int, points: int
) -> None:
    await world.record("10.00", receipt="r")
    await world.give_back("r", total={"amount": "6.00", "currency": "USD"})
    database = Database(world.dsn, 2)
    await database.open()
    async with database.reading() as tx:
        coalition = await read_coalition(tx)
        partner = next(partner for partner in coalition.partners.values() if partner.code == "grocer")
        purchase = (await purchases_by_receipt(tx, partner.id, ["r"]))["r"]
    contract = coalition.contracts_by_id[purchase.contract_id]
    day = coalition.day_of(world.clock.now())
    terms = msgspec.structs.replace(earning_terms(coalition, contract, day), day=day)
    wrong = Return(
        Key(partner.id, "wrong", b""), terms, purchase.member_id, purchase.id, 1, world.clock.now(), amount_minor, points, None
    )
    with pytest.raises(asyncpg.CheckViolationError, match="more would come back"):
        await Ledger(database, world.clock, 1).take_back([wrong])
    await database.close()
    assert await world.available() == 4
    assert await world.transactions() == 2
    assert await world.broken() == []
