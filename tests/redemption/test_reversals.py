"""Reversals: points of a redemption go back to the lots they came from, never more than it took."""

import asyncio
from datetime import timedelta

from tests.points import codes, reverse
from tests.world import World


async def test_points_go_back_to_the_lots_they_came_from_the_last_taken_first(world: World) -> None:
    now = world.clock.now()
    await world.record("20.00", occurredAt=(now - timedelta(days=40)).isoformat())
    await world.record("30.00")
    redeemed = (await world.redeem(40))["redemption"]
    answer = await reverse(world, redeemed["id"], 25)
    assert answer["reversal"]["points"] == 25
    lots = await world.sql("select expires_on, remaining, spent from lot order by expires_on")
    assert [(lot["remaining"], lot["spent"]) for lot in lots] == [(5, 15), (30, 0)]
    refused = (await reverse(world, redeemed["id"], 16))["errors"][0]
    assert (refused["code"], refused["message"]) == (
        "REVERSAL_EXCEEDS_REDEMPTION", "Fewer than 16 points are left of the redemption."
    )  # fmt: skip
    rest = await reverse(world, redeemed["id"])
    assert rest["reversal"]["points"] == 15
    assert (await reverse(world, redeemed["id"]))["errors"][0]["message"] == "No points are left of the redemption."
    assert await world.available() == 50
    assert await world.broken() == []


async def test_what_went_back_to_a_lot_whose_last_day_is_over_expires_at_once(world: World) -> None:
    await world.record("50.00", occurredAt=(world.clock.now() - timedelta(days=190)).isoformat())
    redeemed = (await world.redeem(40))["redemption"]
    world.clock.set(world.clock.now() + timedelta(days=20))
    world.tokens.clear()
    answer = await reverse(world, redeemed["id"])
    assert answer["reversal"]["points"] == 40
    assert await world.available() == 0
    assert await world.broken() == []


async def test_it_repays_what_the_member_owes_first(world: World) -> None:
    await world.record("50.00", receipt="r")
    redeemed = (await world.redeem(50))["redemption"]
    await world.give_back("r")
    assert (await world.wallet())["owed"] == 50
    await reverse(world, redeemed["id"], 30)
    assert [(w := await world.wallet())["available"], w["owed"]] == [0, 20]
    await reverse(world, redeemed["id"], 20)
    assert [(w := await world.wallet())["available"], w["owed"]] == [0, 0]
    assert await world.broken() == []


async def test_another_partners_redemption_is_unknown_and_a_repeated_key_gets_the_first_answer(world: World) -> None:
    await world.record("50.00")
    redeemed = (await world.redeem(50))["redemption"]
    assert codes(await reverse(world, redeemed["id"], 10, who="grocer")) == ["REDEMPTION_UNKNOWN"]
    first = await reverse(world, redeemed["id"], 50, idempotencyKey="k")
    assert await reverse(world, redeemed["id"], 50, idempotencyKey="k") == first
    assert codes(await reverse(world, redeemed["id"], 49, idempotencyKey="k")) == ["IDEMPOTENCY_KEY_REUSED"]
    assert await world.available() == 50


async def test_many_at_once_never_give_back_more_than_was_taken(world: World) -> None:
    await world.record("50.00")
    redeemed = (await world.redeem(50))["redemption"]
    answers = await asyncio.gather(*(reverse(world, redeemed["id"], 20) for _ in range(10)))
    assert sum(answer["errors"] == [] for answer in answers) == 2
    assert await world.available() == 40
    assert await world.broken() == []


async def test_the_month_settles_redeemed_less_reversed(world: World) -> None:
    from tests.settlement.test_close import close_through

    await world.record("500.00")
    redeemed = (await world.redeem(400))["redemption"]
    await reverse(world, redeemed["id"], 100)
    await close_through(world, 10)
    lines = await world.sql(
        "select l.kind, l.points, l.gross_minor from statement_line l join statement s using (statement_id) "
        "join partner p on p.partner_id = s.partner_id where p.code = 'fuel' order by l.ordinal"
    )
    assert [tuple(line) for line in lines] == [("redeem", 400, 312), ("reversal", 100, 78)]
    assert await world.broken() == []


async def test_a_reversal_dated_before_its_redemption_is_refused_and_gives_nothing_back(world: World) -> None:
    await world.record("50.00")
    spent = (await world.redeem(20))["redemption"]["id"]
    refused = await reverse(world, spent, 5, occurredAt=(world.clock.now() - timedelta(minutes=1)).isoformat())
    assert [(e["code"], "before" in e["message"]) for e in refused["errors"]] == [("INPUT_NOT_ACCEPTED", True)]
    assert await world.available() == 30


async def test_a_till_whose_clock_is_right_reverses_what_one_whose_clock_is_ahead_redeemed(world: World) -> None:
    await world.record("100.00")
    ahead = world.clock.now() + timedelta(seconds=50)
    redeemed = (await world.redeem(40, occurredAt=ahead.isoformat()))["redemption"]["id"]
    reversed_ = await reverse(world, redeemed)
    assert (reversed_["errors"], reversed_["reversal"]["points"]) == ([], 40)
    occurred = await world.sql("select occurred_at from transaction order by posted_at, occurred_at")
    assert [row[0] for row in occurred[-2:]] == [ahead, ahead]
