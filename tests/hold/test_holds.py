"""Holds: points set aside, captured in parts, released, run out; honoured beyond their last day; raced for safely."""

import asyncio
from datetime import timedelta

from tests.points import capture, codes, hold, release, run_job
from tests.world import World


async def test_a_hold_sets_points_aside_and_is_captured_in_parts_until_it_is_used_up(world: World) -> None:
    await world.record("100.00")
    placed = (await hold(world, 60))["hold"]
    assert placed == {
        "id": placed["id"], "points": 60, "captured": 0, "released": 0, "state": "OPEN", "expiresAt": "2026-10-15T12:15:00Z",
    }  # fmt: skip
    assert [(w := await world.wallet())["available"], w["held"]] == [40, 60]
    first = await capture(world, placed["id"], 25)
    assert first["redemption"]["points"] == -25
    assert first["hold"] == {"captured": 25, "released": 0, "state": "OPEN"}
    second = await capture(world, placed["id"])
    assert second["redemption"]["points"] == -35
    assert second["hold"]["state"] == "CAPTURED"
    assert [(w := await world.wallet())["available"], w["held"]] == [40, 0]
    assert codes(await capture(world, placed["id"], 1)) == ["HOLD_NOT_OPEN"]
    assert codes(await release(world, placed["id"])) == ["HOLD_NOT_OPEN"]
    assert await world.broken() == []


async def test_more_than_is_held_is_refused_and_the_hold_stays_as_it_was(world: World) -> None:
    await world.record("100.00")
    placed = (await hold(world, 60))["hold"]
    before = await world.transactions()
    assert codes(await capture(world, placed["id"], 61)) == ["CAPTURE_EXCEEDS_HOLD"]
    assert await world.transactions() == before
    assert (await world.wallet())["held"] == 60
    assert codes(await hold(world, 41)) == ["INSUFFICIENT_POINTS"]


async def test_what_is_released_can_be_spent_again_and_releasing_twice_gives_one_answer(world: World) -> None:
    await world.record("100.00")
    placed = (await hold(world, 100))["hold"]
    await capture(world, placed["id"], 30)
    answer = await release(world, placed["id"], key="r")
    assert answer["hold"] == {"captured": 30, "released": 70, "state": "RELEASED"}
    assert await release(world, placed["id"], key="r") == answer
    assert await world.available() == 70
    assert codes(await capture(world, placed["id"], 1)) == ["HOLD_NOT_OPEN"]
    assert await world.broken() == []


async def test_a_hold_is_honoured_after_its_lots_last_day_and_what_is_released_then_expires(world: World) -> None:
    await world.record("100.00", occurredAt=(world.clock.now() - timedelta(days=190)).isoformat())
    # Earned in April: the last day is the end of October, two weeks from now.
    placed = (await hold(world, 80, expiresAt=(world.clock.now() + timedelta(days=25)).isoformat()))["hold"]
    world.clock.set(world.clock.now() + timedelta(days=20))
    world.tokens.clear()
    assert await run_job(world, "expire") == 20
    taken = await capture(world, placed["id"], 50)
    assert taken["redemption"]["takes"] == [{"points": 50, "expiresOn": "2026-10-31", "funder": None}]
    answer = await release(world, placed["id"])
    assert answer["hold"] == {"captured": 50, "released": 30, "state": "RELEASED"}
    assert [(w := await world.wallet())["available"], w["held"]] == [0, 0]
    expired = await world.sql("select -sum(points)::bigint as points from entry where kind = 'expiry'")
    assert expired[0]["points"] == 50
    assert await world.broken() == []


async def test_a_hold_runs_out_by_the_clock_and_cannot_be_captured_from_that_moment_on(world: World) -> None:
    await world.record("100.00")
    placed = (await hold(world, 60))["hold"]
    world.clock.set(world.clock.now() + timedelta(minutes=16))
    world.tokens.clear()
    assert codes(await capture(world, placed["id"])) == ["HOLD_EXPIRED"]
    await run_job(world, "holds")
    assert await run_job(world, "holds") == 0
    assert [(w := await world.wallet())["available"], w["held"]] == [100, 0]
    assert codes(await capture(world, placed["id"])) == ["HOLD_EXPIRED"]
    assert codes(await release(world, placed["id"])) == ["HOLD_EXPIRED"]
    assert await world.broken() == []


async def test_a_hold_for_longer_than_allowed_or_into_the_past_is_refused(world: World) -> None:
    await world.record("100.00")
    for days in (31, -1):
        until = (world.clock.now() + timedelta(days=days)).isoformat()
        assert codes(await hold(world, 10, expiresAt=until)) == ["INPUT_NOT_ACCEPTED"]
    assert (await world.wallet())["held"] == 0


async def test_another_partners_hold_is_unknown_and_nothing_is_captured(world: World) -> None:
    await world.record("100.00")
    placed = (await hold(world, 60))["hold"]
    assert codes(await capture(world, placed["id"], who="grocer")) == ["HOLD_UNKNOWN"]
    assert codes(await release(world, placed["id"], who="grocer")) == ["HOLD_UNKNOWN"]
    assert codes(await capture(world, "txn_01h455vb4pex5vsknk084sn02q")) == ["INPUT_NOT_ACCEPTED"]
    assert (await world.wallet())["held"] == 60


async def test_the_same_key_gets_the_same_hold_and_the_same_capture(world: World) -> None:
    await world.record("100.00")
    first = await hold(world, 60, idempotencyKey="k")
    assert await hold(world, 60, idempotencyKey="k") == first
    assert codes(await hold(world, 61, idempotencyKey="k")) == ["IDEMPOTENCY_KEY_REUSED"]
    taken = await capture(world, first["hold"]["id"], 10, idempotencyKey="c")
    assert await capture(world, first["hold"]["id"], 10, idempotencyKey="c") == taken
    assert (await world.wallet())["held"] == 50


async def test_holding_and_spending_race_and_never_use_a_point_twice(world: World) -> None:
    await world.record("100.00")
    answers = await asyncio.gather(*(hold(world, 30) if n % 2 else world.redeem(30) for n in range(20)))
    assert sum(answer["errors"] == [] for answer in answers) == 3
    wallet = await world.wallet()
    assert wallet["available"] == 10
    assert await world.broken() == []


async def test_twenty_captures_at_once_take_no_more_than_the_hold(world: World) -> None:
    await world.record("100.00")
    placed = (await hold(world, 100))["hold"]
    answers = await asyncio.gather(*(capture(world, placed["id"], 30) for _ in range(20)))
    assert sum(answer["errors"] == [] for answer in answers) == 3
    assert {c for a in answers for c in codes(a)} == {"CAPTURE_EXCEEDS_HOLD"}
    assert (await world.wallet())["held"] == 10
    assert await world.broken() == []


async def test_a_capture_dated_before_the_day_of_its_hold_is_refused_and_takes_nothing(world: World) -> None:
    await world.record("50.00")
    placed = (await hold(world, 20))["hold"]["id"]
    early = (world.clock.now() - timedelta(days=1)).isoformat()
    refused = await capture(world, placed, 20, occurredAt=early)
    assert [(e["code"], "before" in e["message"]) for e in refused["errors"]] == [("INPUT_NOT_ACCEPTED", True)]
    assert codes(await capture(world, placed, 20, occurredAt="0001-01-01T00:00:01Z")) == ["OCCURRED_TOO_LONG_AGO"]
    assert (await world.wallet())["held"] == 20
