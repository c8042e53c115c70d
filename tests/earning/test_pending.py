"""Pending points: earned at once, available after a while; they mature exactly once, and returns take them first."""

import asyncio
from datetime import timedelta

from tests.points import codes, hold, run_job, terms
from tests.world import World


async def test_pending_points_cannot_be_spent_until_they_mature_exactly_once(world: World) -> None:
    await terms(world, pendingDays=14)
    await world.record("100.00")
    assert [(w := await world.wallet())["available"], w["pending"]] == [0, 100]
    assert codes(await world.redeem(1)) == ["INSUFFICIENT_POINTS"]
    assert codes(await hold(world, 1)) == ["INSUFFICIENT_POINTS"]
    world.clock.set(world.clock.now() + timedelta(days=13))
    world.tokens.clear()
    assert await run_job(world, "mature") == 0
    world.clock.set(world.clock.now() + timedelta(days=1))
    world.tokens.clear()
    matured = await asyncio.gather(*(run_job(world, "mature") for _ in range(3)))
    assert sum(matured) <= 1
    await run_job(world, "mature")
    assert [(w := await world.wallet())["available"], w["pending"]] == [100, 0]
    assert (await world.redeem(100))["errors"] == []
    assert await world.broken() == []


async def test_a_return_takes_what_has_not_matured_before_what_is_available(world: World) -> None:
    await world.record("40.00")
    await terms(world, pendingDays=14)
    await world.record("60.00", receipt="late")
    answer = await world.give_back("late", total={"amount": "25.00", "currency": "USD"})
    assert answer["purchaseReturn"]["points"] == -25
    assert [(w := await world.wallet())["available"], w["pending"], w["owed"]] == [40, 35, 0]
    await world.give_back("late")
    assert [(w := await world.wallet())["available"], w["pending"]] == [40, 0]
    world.clock.set(world.clock.now() + timedelta(days=15))
    world.tokens.clear()
    await run_job(world, "mature")
    assert await world.available() == 40
    assert await world.broken() == []


async def test_what_matures_repays_what_is_owed_first(world: World) -> None:
    await world.record("30.00", receipt="spent")
    await world.redeem(30)
    await world.give_back("spent")
    await terms(world, pendingDays=7)
    await world.record("50.00")
    assert [(w := await world.wallet())["pending"], w["owed"]] == [50, 30]
    world.clock.set(world.clock.now() + timedelta(days=8))
    world.tokens.clear()
    await run_job(world, "mature")
    assert [(w := await world.wallet())["available"], w["pending"], w["owed"]] == [20, 0, 0]
    assert await world.broken() == []


async def test_a_contract_may_have_another_waiting_time_than_its_programme(world: World) -> None:
    await terms(world, pendingDays=14)
    partner = (await world.ask("fuel", "{ partner { id } }"))["partner"]["id"]
    publish = """mutation($i: PublishContractInput!) { publishContract(input: $i) {
      contract { pendingDays } errors { code message } } }"""
    new = {
        "partner": partner,
        "programme": "MER",
        "currency": "USD",
        "validFrom": "2026-10-01",
        "earnRate": "1",
        "pendingDays": 0,
    }
    answer = (await world.ask(await world.operator(), publish, i=new))["publishContract"]
    assert answer == {"contract": {"pendingDays": 0}, "errors": []}
    await world.record("10.00")
    await world.record("10.00", who="fuel")
    assert [(w := await world.wallet())["available"], w["pending"]] == [10, 10]
    assert await world.broken() == []
