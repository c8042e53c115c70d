"""Who bears what members owe: credit stays used by whose points were spent and whose goods came back."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from tests.coalition.test_operators import PUBLISH
from tests.credit.test_credit import set_credit, usd, used
from tests.ledger.test_batches import locked_wallet
from tests.points import codes, reverse, run_job
from tests.world import World


async def test_what_members_owe_after_returns_stays_used_so_that_nobody_issues_without_end(world: World) -> None:
    await set_credit(world, "2.00")  # 200 points at 0.01
    for receipt, spent, owed in (("1", 70, 70), ("2", 30, 100)):  # the second purchase first repays what is owed
        await world.record("100.00", receipt=receipt)
        assert (await world.redeem(spent))["errors"] == []
        assert (await world.give_back(receipt))["errors"] == []
        wallet = await world.wallet()
        assert (wallet["available"], wallet["owed"]) == (0, owed)
    assert (await used(world))["used"] == {"amount": "1.70"}
    assert codes(await world.record("31.00")) == ["CREDIT_LIMIT_REACHED"]
    assert (await world.record("30.00"))["errors"] == []
    assert await world.broken() == []


async def test_what_members_repay_frees_the_credit_of_those_whose_returns_left_it_owed(world: World) -> None:
    await set_credit(world, "2.00")
    await world.record("100.00", receipt="1")
    await world.redeem(100)
    await world.give_back("1")
    assert await run_job(world, "credit") == 0  # nothing is repaid
    # The same member buys and takes back again and again: it owes no more than before, and no more credit is used.
    for receipt in range(5):
        await world.record("100.00", receipt=f"again {receipt}")
        await world.give_back(f"again {receipt}")
        assert await run_job(world, "credit") == 1
        assert (await used(world))["used"] == {"amount": "1.00"}
    await world.record("80.00", who="fuel")  # forty points
    assert await run_job(world, "credit") == 1
    assert await run_job(world, "credit") == 0
    assert ((await world.wallet())["owed"], (await used(world))["used"]) == (60, {"amount": "0.60"})
    assert await world.broken() == []


@pytest.mark.parametrize("placed_between", [False, True])
async def test_what_repaid_a_debt_and_is_given_back_too_leaves_the_debt_with_who_bore_it(world: World, placed_between: bool) -> None:
    await set_credit(world, "5.00")

    async def time_passes() -> None:
        if placed_between:
            await run_job(world, "credit")

    # The fuel station sells, has the points spent, and takes the goods back; then the member repays at the grocer and gives that back.
    await world.record("200.00", who="fuel", receipt="f")
    await world.redeem(100)
    await world.give_back("f", who="fuel")
    for receipt in ("1", "2"):
        await time_passes()
        await world.record("100.00", receipt=receipt)
        await time_passes()
        assert (await world.wallet())["owed"] == 0
        await world.record("50.00", receipt=f"{receipt} also")  # the return takes these points, and nothing is owed of its own
        assert codes(await world.give_back(receipt)) == []
        await time_passes()
        assert codes(await world.give_back(f"{receipt} also")) == []
        assert (await world.wallet())["owed"] == 100
        await run_job(world, "credit")
        assert (await used(world))["used"] == {"amount": "0.00"}
        assert await world.broken() == []
    borne = await world.sql("select p.code, d.points, d.charged from debt d join partner p using (partner_id)")
    assert [tuple(row) for row in borne] == [("fuel", 100, False)]


async def test_a_partner_whose_goods_came_back_bears_the_debt_again_when_what_repaid_it_comes_back(world: World) -> None:
    await set_credit(world, "1.00")
    await world.record("100.00", receipt="r")
    await world.redeem(100)
    await world.give_back("r")
    assert codes(await world.record("1.00")) == ["CREDIT_LIMIT_REACHED"]
    await world.record("200.00", who="fuel", receipt="f")
    assert (await run_job(world, "credit"), (await used(world))["used"]) == (1, {"amount": "0.00"})
    await world.give_back("f", who="fuel")
    assert (await run_job(world, "credit"), (await used(world))["used"]) == (3, {"amount": "1.00"})  # and a warning
    assert await run_job(world, "credit") == 0
    assert codes(await world.record("1.00")) == ["CREDIT_LIMIT_REACHED"]
    assert await world.broken() == []


async def debts(world: World) -> dict[tuple[str, bool], int]:
    """What members owe by who bears it, on credit or not, as the job has placed it."""
    await run_job(world, "credit")
    rows = await world.sql("select p.code, d.charged, sum(d.points)::int from debt d join partner p using (partner_id) group by 1, 2")
    assert await world.broken() == []
    return {(row[0], row[1]): row[2] for row in rows}


async def publish(world: World, partner: str) -> None:
    """A contract of a partner for the days from tomorrow on."""
    terms = {"earnRate": "1", "issuePrice": "0.0100", "redeemPrice": "0.0080", "serviceFee": "0.015", "validFrom": "2026-10-16"}
    id = (await world.ask(partner, "{ partner { id } }"))["partner"]["id"]
    given = {"partner": id, "programme": "MER", "currency": "USD", **terms}
    if partner == "airline":
        given["conversionPrice"] = "0.0090"
    assert codes((await world.ask(await world.operator(), PUBLISH, i=given))["publishContract"]) == []


async def test_an_old_overdraft_that_others_covered_does_not_come_back_with_a_new_one(world: World) -> None:
    await set_credit(world, "9.00")
    await publish(world, "airline")
    await world.record("100.00", receipt="old")
    await world.redeem(100)
    await world.give_back("old")
    world.clock.set(world.clock.now() + timedelta(days=1))
    world.tokens.clear()
    assert codes(await world.record("100.00", who="airline")) == []
    assert await debts(world) == {}
    await world.record("200.00", who="fuel", receipt="f")
    await world.redeem(100)
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    await world.give_back("f", who="fuel")
    assert await debts(world) == {("fuel", False): 100}
    await world.record("1.00", receipt="covered")
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    await world.give_back("covered")
    found = await debts(world)
    assert found == {("fuel", False): 99, ("grocer", True): 1}
    assert (await used(world))["used"] == {"amount": "0.01"}


async def test_a_partners_own_points_cover_what_it_overdrew_under_another_contract(world: World) -> None:
    await set_credit(world, "9.00")
    await publish(world, "grocer")
    await world.record("101.00", receipt="first")
    await world.redeem(101)
    await world.give_back("first", total=usd("100.00"))
    world.clock.set(world.clock.now() + timedelta(days=1))
    world.tokens.clear()
    await world.record("100.00", receipt="second")
    await world.record("400.00", who="fuel", receipt="f")
    await world.redeem(200)
    await world.give_back("f", who="fuel")
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    await world.give_back("first", idempotencyKey="rest")
    assert await debts(world) == {("fuel", False): 200, ("grocer", True): 1}
    assert (await used(world))["used"] == {"amount": "1.01"}


async def test_what_was_bought_before_there_was_credit_uses_none_when_it_comes_back(world: World) -> None:
    await world.record("300.00", receipt="before")
    await set_credit(world, "9.00")
    for receipt in ("1", "2", "3"):
        await world.record("100.00", receipt=receipt)
        await world.give_back(receipt)
    await world.redeem(300)
    await world.give_back("before")
    assert await debts(world) == {("grocer", False): 300}
    assert (await used(world))["used"] == {"amount": "0.00"}


async def test_debts_are_placed_without_waiting_for_wallets_and_dealt_without_holding_any(world: World) -> None:
    await set_credit(world, "2.00")
    await world.record("100.00", receipt="r")
    await world.redeem(100)
    await world.give_back("r")
    await world.record("80.00", who="fuel")  # repays forty
    async with asyncio.timeout(1.5), locked_wallet(world):
        assert await run_job(world, "credit") == 0
    assert (await used(world))["used"] == {"amount": "1.00"}
    connection = await asyncpg.connect(world.dsn)
    async with connection.transaction():
        await connection.execute("select from credit_slot for update")
        await run_job(world, "credit")
        async with asyncio.timeout(1.5):  # of this partner alone
            assert codes(await world.record("2.00", who="fuel")) == []
    await connection.close()
    assert await world.sql("select sum(points)::int, (select count(*) from debt_moved) from debt") == [(60, 1)]
    assert await world.broken() == []
    await run_job(world, "credit")
    assert (await used(world))["used"] == {"amount": "0.59"}
    assert await world.broken() == []


async def test_a_reversal_that_repays_what_a_return_left_owed_frees_the_credit_once(world: World) -> None:
    await set_credit(world, "2.00")
    await world.record("100.00", receipt="1")
    spent = (await world.redeem(70))["redemption"]["id"]
    await world.give_back("1")
    assert (await used(world))["used"] == {"amount": "0.70"}
    assert codes(await reverse(world, spent)) == []
    freed = await asyncio.gather(*(run_job(world, "credit") for _ in range(4)))
    assert sorted(freed) == [0, 0, 0, 1]
    assert ((await world.wallet())["owed"], (await used(world))["used"]) == (0, {"amount": "0.00"})
    assert await world.broken() == []
