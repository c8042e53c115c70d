"""Edges at which a movement of points must be refused, or counted, exactly."""

from datetime import timedelta

import pytest

from gateway.points import MAX_POINTS
from tests.conversion.exchanging import convert, quote
from tests.points import bob_joins, capture, codes, hold, reverse, terms
from tests.transfer.test_transfer import give
from tests.world import World

ROOM = "update wallet set available = $1 where member_id = (select member_id from card where number = $2)"


async def test_what_is_given_away_counts_to_the_days_limit(world: World) -> None:
    await bob_joins(world)
    await world.record("200.00")
    await terms(world, spendMostADay=100)
    assert codes(await give(world, 60)) == []
    assert codes(await give(world, 41)) == ["DAILY_LIMIT_REACHED"]
    assert codes(await world.redeem(41)) == ["DAILY_LIMIT_REACHED"]
    assert codes(await world.redeem(40)) == []
    assert await world.available() == 100
    assert await world.broken() == []


async def test_what_an_order_sets_aside_counts_to_the_days_limit(world: World) -> None:
    await world.record("900.00")
    await terms(world, spendMostADay=250)
    quoted = (await quote(world))["quote"]["id"]
    assert codes(await convert(world, quoted)) == []
    assert codes(await world.redeem(51)) == ["DAILY_LIMIT_REACHED"]
    assert codes(await world.redeem(50)) == []
    assert await world.broken() == []


async def test_neither_a_gift_nor_a_reversal_fills_a_wallet_beyond_what_it_holds(world: World) -> None:
    await bob_joins(world)
    await world.record("100.00")
    spent = (await world.redeem(50))["redemption"]["id"]
    assert codes(await give(world, 1)) == []
    await world.sql(ROOM, MAX_POINTS - 10, "CARD-2")
    assert codes(await give(world, 11)) == ["AMOUNT_NOT_ACCEPTED"]
    assert await world.available() == 49
    await world.sql(ROOM, MAX_POINTS - 10, "CARD-1")
    assert codes(await reverse(world, spent, 11)) == ["AMOUNT_NOT_ACCEPTED"]
    assert codes(await reverse(world, spent, 10)) == []
    assert await world.available() == MAX_POINTS


@pytest.mark.parametrize(("early", "refused"), [(timedelta(0), ["HOLD_EXPIRED"]), (timedelta(seconds=1), [])])
async def test_a_hold_is_over_at_the_very_moment_it_ends(world: World, early: timedelta, refused: list[str]) -> None:
    await world.record("100.00")
    until = world.clock.now() + timedelta(minutes=10)
    placed = (await hold(world, 30, expiresAt=until.isoformat()))["hold"]["id"]
    world.clock.set(until - early)
    world.tokens.clear()
    assert codes(await capture(world, placed, 30)) == refused
    assert (await world.wallet())["held"] == (30 if refused else 0)
    assert await world.broken() == []


@pytest.mark.parametrize("whose", ["CARD-1", "CARD-2"])
async def test_a_member_who_is_suspended_everywhere_gives_nothing_and_gets_nothing(world: World, whose: str) -> None:
    await bob_joins(world)
    await world.record("30.00")
    suspend = "update membership set status = 'suspended' where member_id = (select member_id from card where number = $1)"
    await world.sql(suspend, whose)
    before = await world.transactions()
    assert codes(await give(world, 10)) == ["NOT_ALLOWED"]
    assert await world.transactions() == before
    assert await world.broken() == []
