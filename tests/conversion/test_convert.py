"""Conversion into the airline's currency, the airline answering over real HTTP, with its faults."""

import asyncio
from typing import Any

import httpx

from tests.world import World

QUOTE = """mutation($input: QuoteConversionInput!) { quoteConversion(input: $input) {
  quote { id take give rate { take give } expiresAt } errors { code message } } }"""
CONVERT = """mutation($input: ConvertPointsInput!) { convertPoints(input: $input) {
  conversion { id points give state partnerReference } errors { code message } } }"""
ANN = {"externalId": "ann"}


async def quote(world: World, take: int = 200, **changes: Any) -> dict[str, Any]:
    input = {"from": "MER", "to": "SKY", "take": take, "member": ANN, **changes}
    return (await world.ask("airline", QUOTE, input=input))["quoteConversion"]


async def convert(world: World, quote_id: str, key: str = "k") -> dict[str, Any]:
    input = {"idempotencyKey": key, "quote": quote_id, "member": ANN}
    return (await world.ask("airline", CONVERT, input=input))["convertPoints"]


async def fault(world: World, mode: str, times: int = 1) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.put(f"{world.airline_url}/faults", json={"mode": mode, "times": times})


async def miles(world: World) -> int:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"{world.airline_url}/accounts/ann")).json()["balance"]


async def test_a_quote_is_used_once_and_both_legs_happen(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world, 400))["quote"]
    assert (quoted["take"], quoted["give"], quoted["rate"]) == (400, 200, {"take": 200, "give": 100})
    done = await convert(world, quoted["id"])
    assert (done["conversion"]["points"], done["conversion"]["give"], done["conversion"]["state"]) == (-400, 200, "COMPLETED")
    assert (await world.available(), await miles(world)) == (50, 200)
    assert await convert(world, quoted["id"]) == done
    assert [e["code"] for e in (await convert(world, quoted["id"], "other"))["errors"]] == ["QUOTE_USED"]
    assert (await world.available(), await miles(world)) == (50, 200)
    assert await world.broken() == []


async def test_the_same_conversion_at_once_happens_once(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    answers = await asyncio.gather(*(convert(world, quoted["id"]) for _ in range(5)), return_exceptions=True)
    assert any(isinstance(a, dict) and a["errors"] == [] for a in answers)
    assert (await convert(world, quoted["id"]))["conversion"]["state"] == "COMPLETED"
    assert (await world.available(), await miles(world)) == (250, 100)
    assert await world.broken() == []


async def test_what_the_rate_does_not_offer_is_refused(world: World) -> None:
    await world.record("450.00")
    assert [e["code"] for e in (await quote(world, 100))["errors"]] == ["BELOW_MINIMUM"]
    assert [e["code"] for e in (await quote(world, 300))["errors"]] == ["NOT_IN_INCREMENT"]
    assert [e["code"] for e in (await quote(world, at="2026-01-01T00:00:00+14:00"))["errors"]] == ["RATE_NOT_OFFERED"]
    assert (await world.available(), await miles(world)) == (450, 0)


async def test_a_quote_runs_out(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    from datetime import timedelta

    world.clock.set(world.clock.now() + timedelta(minutes=5))
    world.tokens.clear()
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["QUOTE_EXPIRED"]
    assert (await world.available(), await miles(world)) == (450, 0)


async def test_too_few_points_hold_nothing_and_leave_the_quote_unused(world: World) -> None:
    quoted = (await quote(world))["quote"]
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["INSUFFICIENT_POINTS"]
    await world.record("200.00")
    assert (await convert(world, quoted["id"]))["conversion"]["state"] == "COMPLETED"
    assert await world.broken() == []


async def test_a_refusal_by_the_airline_gives_the_points_back(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    await fault(world, "refuse")
    answer = await convert(world, quoted["id"])
    assert [e["code"] for e in answer["errors"]] == ["NOT_ALLOWED"]
    assert "closed" in answer["errors"][0]["message"]
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"], await miles(world)) == (450, 0, 0)
    assert await world.broken() == []


async def test_a_lost_answer_keeps_the_points_held_until_it_is_known_and_credits_once(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    await fault(world, "lose_answer")
    answer = await convert(world, quoted["id"])
    assert [e["code"] for e in answer["errors"]] == ["STATE_CONFLICT"]
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"], await miles(world)) == (250, 200, 100)
    assert await world.broken() == []
    assert (await convert(world, quoted["id"]))["conversion"]["state"] == "COMPLETED"
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"], await miles(world)) == (250, 0, 100)
    assert await world.broken() == []


async def test_a_member_converts_with_a_token_of_its_own(world: World) -> None:
    from gateway.access import accounts
    from gateway.database import Database
    from tests.world import log_in

    await world.record("450.00")
    member_id = (await world.sql("select member_id from member"))[0][0]
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await accounts.set_password(tx, "member", "ann", "a long password", member_id, world.clock.now())
    await database.close()
    token = await log_in(world, "member-app", "com.example.loyalty:/callback", "ann", "a long password")
    quoted = (await world.ask(token, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]
    done = await world.ask(token, CONVERT, input={"idempotencyKey": "k", "quote": quoted["id"]})
    assert done["convertPoints"]["conversion"]["state"] == "COMPLETED"
    me = "{ me { wallets { available } memberships { partner { code } } activity(first: 5) { nodes { __typename points } } } }"
    seen = (await world.ask(token, me))["me"]
    assert seen["wallets"] == [{"available": 250}]
    assert seen["activity"]["nodes"] == [{"__typename": "Conversion", "points": -200}, {"__typename": "Earning", "points": 450}]
