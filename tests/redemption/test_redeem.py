"""Redeeming: first-expiring first, each take traced to its funder, never more than is there."""

import asyncio
from datetime import datetime, timedelta

from tests.points import codes
from tests.world import REDEEM, World

TAKES = "query($id: ID!) { node(id: $id) { ... on Redemption { takes { points expiresOn funder { code } } } } }"


async def test_points_are_taken_first_expiring_first_and_traced_to_their_funders(world: World) -> None:
    now = world.clock.now()
    await world.record("10.00", occurredAt=now.isoformat())
    await world.record("40.00", who="fuel", occurredAt=(now - timedelta(days=40)).isoformat())
    answer = await world.redeem(25)
    assert answer["redemption"]["points"] == -25
    assert answer["redemption"]["takes"] == [
        {"points": 20, "expiresOn": "2027-03-31", "funder": {"code": "fuel"}},
        {"points": 5, "expiresOn": "2027-04-30", "funder": None},  # where else its member shops is not told to the fuel station
    ]
    seen = (await world.ask(await world.operator(), TAKES, id=answer["redemption"]["id"]))["node"]["takes"]
    assert [each["funder"]["code"] for each in seen] == ["fuel", "grocer"]
    assert await world.available() == 5
    assert await world.broken() == []


async def test_more_than_is_available_is_refused_and_nothing_moves(world: World) -> None:
    await world.record("10.00")
    answer = await world.redeem(11)
    assert [e["code"] for e in answer["errors"]] == ["INSUFFICIENT_POINTS"]
    assert await world.available() == 10
    assert await world.transactions() == 1
    assert await world.broken() == []


async def test_twenty_redemptions_at_once_never_spend_a_point_twice(world: World) -> None:
    await world.record("100.00")
    answers = await asyncio.gather(*(world.redeem(30) for _ in range(20)))
    assert sum(answer["errors"] == [] for answer in answers) == 3
    assert await world.available() == 10
    assert await world.broken() == []


async def test_a_repeated_key_gets_the_first_answer_also_when_it_was_a_refusal(world: World) -> None:
    input = {"idempotencyKey": "k", "member": {"externalId": "ann"}, "programme": "MER", "points": 50}
    refused = await world.ask("fuel", REDEEM, input=input)
    assert [e["code"] for e in refused["redeemPoints"]["errors"]] == ["INSUFFICIENT_POINTS"]
    await world.record("100.00")
    assert await world.ask("fuel", REDEEM, input=input) == refused
    assert await world.available() == 100


async def test_each_of_two_contents_that_two_processes_took_under_one_key_gets_its_own_answer_again(world: World) -> None:
    """Also when it is refused by now before it gets to the ledger: the other's row lies in another bucket (decision 0001)."""
    await world.record("100.00")
    input = {"idempotencyKey": "k", "member": {"externalId": "ann"}, "programme": "MER", "points": 50}
    first = await world.ask("fuel", REDEEM, input=input)
    for step in (1, 255):  # one before and one after it in the index
        await world.sql(
            "insert into idempotency (owner_id, key, bucket, digest, refusal, answered_at)"
            f" select owner_id, key, (bucket + {step}) % 256, '\\x00', 'INSUFFICIENT_POINTS', answered_at from idempotency"
            " where key = 'k' and refusal is null"
        )
    await world.sql("update membership set status = 'suspended'")
    assert codes(await world.redeem(10)) == ["MEMBERSHIP_SUSPENDED"]
    assert await world.ask("fuel", REDEEM, input=input) == first
    other = await world.ask("fuel", REDEEM, input={**input, "points": 40})
    assert codes(other["redeemPoints"]) == ["IDEMPOTENCY_KEY_REUSED"]
    assert (await world.sql("select available from wallet"))[0][0] == 50


async def test_zero_negative_and_unknown_are_refused(world: World) -> None:
    await world.record("10.00")
    assert [e["code"] for e in (await world.redeem(0))["errors"]] == ["INPUT_NOT_ACCEPTED"]
    assert [e["code"] for e in (await world.redeem(-5))["errors"]] == ["INPUT_NOT_ACCEPTED"]
    assert [e["code"] for e in (await world.redeem(5, programme="XXX"))["errors"]] == ["PROGRAMME_UNKNOWN"]
    assert [e["code"] for e in (await world.redeem(5, programme="SKY"))["errors"]] == ["NOT_ALLOWED"]
    assert await world.available() == 10


async def test_points_beyond_their_last_day_cannot_be_spent_and_expire_once(world: World) -> None:
    await world.record("10.00")
    expire = "mutation($i: ExpirePointsInput!) { expirePoints(input: $i) { wallets points errors { code } } }"
    input = {"programme": "MER", "through": "2027-04-30"}
    world.clock.set(datetime.fromisoformat("2027-04-30T16:00:00Z"))
    world.tokens.clear()
    early = (await world.ask(await world.operator(), expire, i=input))["expirePoints"]
    assert ([e["code"] for e in early["errors"]], early["points"]) == (["NOT_ALLOWED"], 0)
    world.clock.set(datetime.fromisoformat("2027-05-01T12:00:00Z"))
    world.tokens.clear()
    assert [e["code"] for e in (await world.redeem(5))["errors"]] == ["INSUFFICIENT_POINTS"]
    operator = await world.operator()
    assert (await world.ask(operator, expire, i=input))["expirePoints"] == {"wallets": 1, "points": 10, "errors": []}
    assert (await world.ask(operator, expire, i=input))["expirePoints"] == {"wallets": 0, "points": 0, "errors": []}
    assert await world.available() == 0
    assert await world.broken() == []


async def test_a_batch_gives_each_redemption_its_own_outcome_and_the_rest_goes_through(world: World) -> None:
    query = """mutation($input: [RedeemPointsInput!]!) { redeemPointsBatch(input: $input) {
      redemption { points } errors { code } } }"""
    await world.record("100.00")
    ann, nobody = {"externalId": "ann"}, {"externalId": "nobody"}
    wanted = [(60, ann), (60, ann), (5, nobody), (40, ann), (0, ann)]
    input = [{"idempotencyKey": f"b{n}", "member": m, "programme": "MER", "points": p} for n, (p, m) in enumerate(wanted)]
    for _ in range(2):
        answers = (await world.ask("fuel", query, input=input))["redeemPointsBatch"]
        assert [a["redemption"] and a["redemption"]["points"] for a in answers] == [-60, None, None, -40, None]
        assert [e["code"] for a in answers for e in a["errors"]] == [
            "INSUFFICIENT_POINTS",
            "MEMBER_UNKNOWN",
            "INPUT_NOT_ACCEPTED",
        ]
    assert await world.available() == 0
    too_many = await world.post("fuel", query, input=input * 201)
    assert "1005" in too_many.json()["errors"][0]["message"]
    assert await world.broken() == []
