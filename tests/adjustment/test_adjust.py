"""Adjustments: with a reason, by two people above the limit, and never below zero."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from gateway import ids
from gateway.database.tx import POSTER_ROLE
from tests.points import ADJUST, APPROVE, REJECT, codes, second_operator
from tests.world import World


async def ann(world: World) -> str:
    query = '{ memberByCard(card: "CARD-1") { id } }'
    return str((await world.ask(await world.operator(), query))["memberByCard"]["id"])


async def adjust(world: World, points: int, **changes: Any) -> dict[str, Any]:
    given = {
        "idempotencyKey": f"a-{next(world.numbers)}", "member": await ann(world), "programme": "MER", "partner": "grocer",
        "points": points, "reason": "A till was down",
    }  # fmt: skip
    return (await world.ask(await world.operator(), ADJUST, i={**given, **changes}))["adjustPoints"]


async def test_up_to_the_limit_one_operator_suffices_and_the_entry_balances(world: World) -> None:
    answer = await adjust(world, 1000)
    assert answer["adjustment"]["state"] == "POSTED"
    assert await world.available() == 1000
    taken = await adjust(world, -600)
    assert taken["adjustment"]["state"] == "POSTED"
    assert await world.available() == 400
    assert await world.redeem(100) is not None
    assert codes(await adjust(world, -400)) == ["INSUFFICIENT_POINTS"]
    assert await world.available() == 300
    assert await world.broken() == []


async def test_points_split_into_many_adjustments_of_a_day_count_together(world: World) -> None:
    await world.operator()
    answers = await asyncio.gather(*(adjust(world, 400) for _ in range(4)))
    assert sorted(each["adjustment"]["state"] for each in answers) == ["AWAITING_APPROVAL"] * 2 + ["POSTED"] * 2
    assert await world.available() == 800
    world.clock.set(world.clock.now() + timedelta(hours=25))
    world.tokens.clear()
    assert (await adjust(world, 400))["adjustment"]["state"] == "POSTED"
    assert await world.available() == 1200


async def test_above_the_limit_it_waits_for_another_operator_and_its_own_cannot_approve(world: World) -> None:
    asked = (await adjust(world, 1001))["adjustment"]
    assert asked["state"] == "AWAITING_APPROVAL"
    assert asked["transaction"] is None
    assert await world.available() == 0
    own = (await world.ask(await world.operator(), APPROVE, i={"adjustment": asked["id"]}))["approveAdjustment"]
    assert codes(own) == ["NOT_ALLOWED"]
    assert await world.available() == 0
    otto = await second_operator(world)
    waiting = "{ adjustmentsAwaiting(first: 5) { nodes { id points reason member } } }"
    assert [n["id"] for n in (await world.ask(otto, waiting))["adjustmentsAwaiting"]["nodes"]] == [asked["id"]]
    for _ in range(2):
        decided = (await world.ask(otto, APPROVE, i={"adjustment": asked["id"]}))["approveAdjustment"]
        assert decided == {"adjustment": {"state": "POSTED"}, "errors": []}
    assert await world.available() == 1001
    late = (await world.ask(otto, REJECT, i={"adjustment": asked["id"]}))["rejectAdjustment"]
    assert codes(late) == ["STATE_CONFLICT"]
    assert await world.broken() == []


async def test_a_rejected_adjustment_moves_nothing(world: World) -> None:
    asked = (await adjust(world, 5000))["adjustment"]
    otto = await second_operator(world)
    decided = (await world.ask(otto, REJECT, i={"adjustment": asked["id"]}))["rejectAdjustment"]
    assert decided["adjustment"] == {"state": "REJECTED"}
    assert await world.available() == 0
    assert await world.transactions() == 0
    assert await world.broken() == []


async def test_the_role_that_posts_cannot_post_what_waits_or_was_rejected(world: World) -> None:
    otto = await second_operator(world)
    waiting, rejected = [(await adjust(world, 5000))["adjustment"]["id"] for _ in range(2)]
    await world.ask(otto, REJECT, i={"adjustment": rejected})
    poster = await asyncpg.connect(world.dsn, server_settings={"role": POSTER_ROLE})
    for id, state in ((ids.read("adj", waiting), "awaiting_approval"), (ids.read("adj", rejected), "rejected"), (uuid4(), "unknown")):
        with pytest.raises(asyncpg.RaiseError, match=state):
            await poster.execute("select post_adjustment(now(), $1::smallint, $2, '2026-10-01')", ids.bucket_of(id), id)
    await poster.close()
    assert await world.available() == 0
    assert await world.transactions() == 0


async def test_a_repeated_key_adjusts_once_and_other_content_is_refused(world: World) -> None:
    first = await adjust(world, 10, idempotencyKey="k")
    assert await adjust(world, 10, idempotencyKey="k") == first
    assert codes(await adjust(world, 11, idempotencyKey="k")) == ["IDEMPOTENCY_KEY_REUSED"]
    assert await world.available() == 10


async def test_numbers_at_the_edges_are_refused_with_the_field_named(world: World) -> None:
    assert codes(await adjust(world, 0)) == ["INPUT_NOT_ACCEPTED"]
    assert codes(await adjust(world, 10, partner="nobody")) == ["INPUT_NOT_ACCEPTED"]
    assert codes(await adjust(world, 10, member="mem_01h455vb4pex5vsknk084sn02q")) == ["MEMBER_UNKNOWN"]
    assert codes(await adjust(world, 10, reason="")) == ["INPUT_NOT_ACCEPTED"]
    huge = await adjust(world, 2**53 - 1)
    assert huge["adjustment"]["state"] == "AWAITING_APPROVAL"
    given = {
        "idempotencyKey": "k", "member": await ann(world), "programme": "MER", "partner": "grocer", "points": 2**53, "reason": "x",
    }  # fmt: skip
    assert "2^53-1" in (await world.post(await world.operator(), ADJUST, i=given)).json()["errors"][0]["message"]
    assert await world.transactions() == 0


@pytest.mark.parametrize("way", ["disabled", "with another role"])
async def test_what_somebody_asked_for_who_may_not_any_more_is_not_approved_and_can_be_rejected(world: World, way: str) -> None:
    otto = await second_operator(world)
    asked = (await adjust(world, 1_600))["adjustment"]
    assert asked["state"] == "AWAITING_APPROVAL"
    before = await world.transactions()
    if way == "disabled":
        await world.disable("olga")
    else:
        await world.sql("update account set roles = '{auditor}' where login = 'olga'")
    refused = (await world.ask(otto, APPROVE, i={"adjustment": asked["id"]}))["approveAdjustment"]
    assert [error["message"] for error in refused["errors"]] == ["Who asked for this adjustment may not ask for any by now; reject it."]
    assert await world.transactions() == before
    rejected = (await world.ask(otto, REJECT, i={"adjustment": asked["id"]}))["rejectAdjustment"]
    assert (codes(rejected), rejected["adjustment"]["state"]) == ([], "REJECTED")
