"""Transfers: points keep their lots on the way, arrive whole or not at all, and never go to oneself."""

import asyncio
from typing import Any

from tests.points import TRANSFER, ann_logs_in, bob_joins, codes, terms
from tests.world import World


async def give(world: World, points: int, card: str = "CARD-2", **changes: Any) -> dict[str, Any]:
    given = {"idempotencyKey": f"t-{next(world.numbers)}", "card": card, "programme": "MER", "points": points}
    return (await world.ask(await ann_logs_in(world), TRANSFER, i={**given, **changes}))["transferPoints"]


async def test_points_arrive_with_their_lots_and_nothing_stays_in_transit(world: World) -> None:
    await bob_joins(world)
    await world.record("30.00")
    await world.record("40.00", who="fuel")
    answer = await give(world, 40, message="For the holidays")
    assert answer["transfer"] == {
        "id": answer["transfer"]["id"], "points": -40, "direction": "OUT", "message": "For the holidays",
    }  # fmt: skip
    assert await world.available() == 10
    assert (await world.wallet(external_id="bob"))["available"] == 40
    kept = await world.sql(
        "select p.code, l.original from lot l join partner p on p.partner_id = l.funder_id "
        "join card c on c.member_id = l.member_id where c.number = 'CARD-2' order by l.original"
    )
    assert sorted(row["original"] for row in kept) == [10, 30] or sorted(row["original"] for row in kept) == [20, 20]
    activity = "{ me { activity(first: 1) { nodes { __typename points } } } }"
    latest = (await world.ask(await ann_logs_in(world), activity))["me"]["activity"]["nodes"][0]
    assert latest == {"__typename": "Transfer", "points": -40}
    assert await world.broken() == []


async def test_to_oneself_a_blocked_card_or_nobody_is_refused_and_nothing_moves(world: World) -> None:
    await bob_joins(world)
    await world.record("30.00")
    before = await world.transactions()
    assert codes(await give(world, 10, card="CARD-1")) == ["NOT_ALLOWED"]
    assert codes(await give(world, 10, card="CARD-9")) == ["MEMBER_UNKNOWN"]
    assert codes(await give(world, 31)) == ["INSUFFICIENT_POINTS"]
    assert codes(await give(world, 0)) == ["INPUT_NOT_ACCEPTED"]
    await world.sql("update card set status = 'blocked' where number = 'CARD-2'")
    assert codes(await give(world, 10)) == ["CARD_BLOCKED"]
    await world.sql("update card set status = 'active' where number = 'CARD-2'")
    await terms(world, transferable=False)
    assert codes(await give(world, 10)) == ["NOT_ALLOWED"]
    assert await world.transactions() == before
    assert await world.available() == 30


async def test_a_repeated_key_moves_points_once_also_when_twenty_ask_at_once(world: World) -> None:
    await ann_logs_in(world)  # once, before they all ask
    await bob_joins(world)
    await world.record("100.00")
    answers = await asyncio.gather(*(give(world, 30, idempotencyKey="same") for _ in range(20)))
    assert len({answer["transfer"]["id"] for answer in answers}) == 1
    assert await world.available() == 70
    assert codes(await give(world, 31, idempotencyKey="same")) == ["IDEMPOTENCY_KEY_REUSED"]
    answers = await asyncio.gather(*(give(world, 30) for _ in range(20)))
    assert sum(answer["errors"] == [] for answer in answers) == 2
    assert (await world.wallet(external_id="bob"))["available"] == 90
    assert await world.broken() == []


async def test_what_the_other_member_owes_is_repaid_first(world: World) -> None:
    await bob_joins(world)
    bob = {"member": {"externalId": "bob"}}
    await world.record("50.00", receipt="b", **bob)
    await world.redeem(50, who="grocer", **bob)
    await world.give_back("b")
    await world.record("80.00")
    await give(world, 80)
    assert [(w := await world.wallet(external_id="bob"))["available"], w["owed"]] == [30, 0]
    assert await world.broken() == []


async def test_only_a_members_own_token_gives_points_away(world: World) -> None:
    given = {"idempotencyKey": "k", "card": "CARD-1", "programme": "MER", "points": 1}
    for who in ("grocer", await world.operator()):
        assert (await world.post(who, TRANSFER, i=given)).status_code == 403
    assert await world.transactions() == 0
