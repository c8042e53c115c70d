"""Who may exchange points: members, partners, those that act for them, and nobody for whom is suspended."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from gateway.coalition import catalogue
from gateway.conversion.convert import Converter
from gateway.database.tx import POSTER_ROLE
from tests.access.consenting import GRANT, WITHDRAW, agree, exchange
from tests.conversion.exchanging import ANN, CONVERT, QUOTE, miles, quote
from tests.house.test_ending import another
from tests.points import (
    ADJUST,
    APPROVE,
    TRANSFER,
    ann_hands_over,
    ann_logs_in,
    bob_joins,
    codes,
    run_job,
    second_operator,
    until_revoked,
)
from tests.world import World

PUBLISH = "mutation($i: PublishRateInput!) { publishConversionRate(input: $i) { errors { code } } }"


async def test_a_member_converts_with_a_token_of_its_own(world: World) -> None:
    from tests.world import log_in

    await world.record("450.00")
    member_id = (await world.sql("select member_id from member"))[0][0]
    await world.set_password("ann", "a long password", member_id)
    token = await log_in(world, "member-app", "com.example.loyalty:/callback", "ann", "a long password")
    quoted = (await world.ask(token, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]
    done = await world.ask(token, CONVERT, input={"idempotencyKey": "k", "quote": quoted["id"]})
    assert done["convertPoints"]["conversion"]["state"] == "COMPLETED"
    backdated = {"from": "MER", "to": "SKY", "take": 200, "at": "2026-02-01T00:00:00Z"}
    refused = (await world.ask(token, QUOTE, input=backdated))["quoteConversion"]
    assert [e["code"] for e in refused["errors"]] == ["NOT_ALLOWED"]
    me = "{ me { wallets { available } memberships { partner { code } } activity(first: 5) { nodes { __typename points } } } }"
    seen = (await world.ask(token, me))["me"]
    assert seen["wallets"] == [{"available": 250}]
    assert seen["activity"]["nodes"] == [{"__typename": "Conversion", "points": -200}, {"__typename": "Earning", "points": 450}]


async def test_a_quote_in_a_members_name_serves_no_partner_once_the_consent_is_withdrawn(world: World) -> None:
    await world.record("1000.00")
    consent = await agree(world, "points:convert")
    acting = (await exchange(world, await ann_hands_over(world, "points:convert"))).json()["access_token"]
    wanted = {"from": "MER", "to": "SKY", "take": 200}
    quoted = (await world.ask(acting, QUOTE, input=wanted))["quoteConversion"]["quote"]
    named = (await world.ask(acting, QUOTE, input={**wanted, "member": {"externalId": "bob"}}))["quoteConversion"]
    assert [e["code"] for e in named["errors"]] == ["INPUT_NOT_ACCEPTED"]
    await world.ask(await ann_logs_in(world), WITHDRAW, i={"consent": consent})
    await until_revoked(world, acting)
    for who in ("fuel", "grocer"):
        for member in (ANN, {"card": "CARD-1"}):
            given = {"idempotencyKey": f"{who} {member}", "quote": quoted["id"], "member": member}
            refused = (await world.ask(who, CONVERT, input=given))["convertPoints"]
            assert [e["code"] for e in refused["errors"]] == ["QUOTE_EXPIRED"]
    assert (await world.available(), await miles(world)) == (1000, 0)
    assert await world.broken() == []
    # The member itself, whose quote it is, may use it still.
    done = await world.ask(await ann_logs_in(world), CONVERT, input={"idempotencyKey": "own", "quote": quoted["id"]})
    assert done["convertPoints"]["conversion"]["state"] == "COMPLETED"


@pytest.mark.parametrize("where", ["at the airline", "everywhere"])
async def test_points_of_who_is_suspended_are_converted_by_nobody(world: World, where: str) -> None:
    await world.record("1000.00")
    await agree(world, "points:convert")
    ann = await ann_logs_in(world)
    acting = (await exchange(world, await ann_hands_over(world, "points:convert"))).json()["access_token"]
    wanted = {"from": "MER", "to": "SKY", "take": 200}
    before = (await world.ask(ann, QUOTE, input=wanted))["quoteConversion"]["quote"]
    only = "where partner_id = (select partner_id from partner where code = 'airline')" if where == "at the airline" else ""
    await world.sql(f"update membership set status = 'suspended' {only}")
    for token in (ann, acting):
        refused = (await world.ask(token, QUOTE, input=wanted))["quoteConversion"]
        assert [e["code"] for e in refused["errors"]] == ["MEMBERSHIP_SUSPENDED"]
        given = {"idempotencyKey": token[-5:], "quote": before["id"]}
        refused = (await world.ask(token, CONVERT, input=given))["convertPoints"]
        assert [e["code"] for e in refused["errors"]] == ["MEMBERSHIP_SUSPENDED"]
    assert ((await world.sql("select sum(available) from wallet"))[0][0], await miles(world)) == (1000, 0)


async def test_a_partner_does_nothing_for_a_member_that_is_suspended_there_and_others_do(world: World) -> None:
    await world.record("1000.00")
    await bob_joins(world)
    await agree(world, "points:convert", "points:transfer")
    ann = await ann_logs_in(world)
    acting = (await exchange(world, await ann_hands_over(world, "points:convert points:transfer"))).json()["access_token"]
    wanted = {"from": "MER", "to": "SKY", "take": 200}
    quoted = (await world.ask(ann, QUOTE, input=wanted))["quoteConversion"]["quote"]
    await world.sql("update membership set status = 'suspended' where partner_id = (select partner_id from partner where code = 'fuel')")
    convert = {"idempotencyKey": "own", "quote": quoted["id"]}
    give = {"idempotencyKey": "gift", "card": "CARD-2", "programme": "MER", "points": 5}
    for token, expected in ((acting, ["MEMBERSHIP_SUSPENDED"]), (ann, [])):
        assert codes((await world.ask(token, QUOTE, input=wanted))["quoteConversion"]) == expected
        assert codes((await world.ask(token, CONVERT, input=convert))["convertPoints"]) == expected
        assert codes((await world.ask(token, TRANSFER, i=give))["transferPoints"]) == expected
        assert await world.available() == (1000 if expected else 795)
    assert await world.broken() == []


async def test_who_may_post_completes_no_exchange_that_was_not_credited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.record("1000.00")
    ann = await ann_logs_in(world)
    quoted = (await world.ask(ann, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]

    async def crashes(*_: Any) -> None:
        raise RuntimeError("a crash between the hold and the question")

    with monkeypatch.context() as crashing:
        crashing.setattr(Converter, "_advance", crashes)
        await world.post(ann, CONVERT, input={"idempotencyKey": "k", "quote": quoted["id"]})
    (order,) = await world.sql("select bucket, conversion_id, state from conversion")
    assert order["state"] == "held"
    poster = await asyncpg.connect(world.dsn, server_settings={"role": POSTER_ROLE})
    for id, told in ((order["conversion_id"], "is held"), (uuid4(), "is unknown")):
        with pytest.raises(asyncpg.RaiseError, match=told):
            await poster.execute("select post_conversion(now(), $1, $2, now(), '2026-10-01')", order["bucket"], id)
    await poster.close()
    assert await world.broken() == []
    done = (await world.ask(ann, CONVERT, input={"idempotencyKey": "k", "quote": quoted["id"]}))["convertPoints"]
    assert done["conversion"]["state"] == "COMPLETED"


async def test_nothing_flows_to_a_partner_that_is_suspended(world: World) -> None:
    await world.record("1000.00")
    ann = await ann_logs_in(world)
    operator = await world.operator()
    wanted = {"from": "MER", "to": "SKY", "take": 200}
    before = (await world.ask(ann, QUOTE, input=wanted))["quoteConversion"]["quote"]
    await world.sql("update partner set status = 'suspended' where code = 'airline'")
    async with asyncio.timeout(5):  # until this process knows
        while (await world.ask(ann, QUOTE, input=wanted))["quoteConversion"]["errors"] == []:
            await asyncio.sleep(0.05)
    told = (await world.ask(ann, CONVERT, input={"idempotencyKey": "k", "quote": before["id"]}))["convertPoints"]
    assert [e["code"] for e in told["errors"]] == ["NOT_ALLOWED"]
    consent = {"partner": "airline", "purpose": "to fly", "scopes": ["balance:read"], "dataClasses": []}
    assert codes((await world.ask(ann, GRANT, i=consent))["grantConsent"]) == ["NOT_ALLOWED"]
    member = (await world.ask(operator, '{ memberByCard(card: "CARD-1") { id } }'))["memberByCard"]["id"]
    given = {"idempotencyKey": "a", "member": member, "programme": "MER", "partner": "airline", "points": 5, "reason": "sorry"}
    assert codes((await world.ask(operator, ADJUST, i=given))["adjustPoints"]) == ["NOT_ALLOWED"]
    assert (await world.available(), await miles(world)) == (1000, 0)


@pytest.mark.parametrize("who", ["member", "partner"])
async def test_what_was_converted_before_a_suspension_is_told_as_it_is_and_what_was_not_asked_for_is_given_back(
    world: World, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.record("1000.00")
    ann = await ann_logs_in(world)
    wanted = {"from": "MER", "to": "SKY", "take": 200}
    quotes = [(await world.ask(ann, QUOTE, input=wanted))["quoteConversion"]["quote"]["id"] for _ in range(2)]
    given = {"idempotencyKey": "done", "quote": quotes[0]}
    done = (await world.ask(ann, CONVERT, input=given))["convertPoints"]
    assert done["conversion"]["state"] == "COMPLETED"

    async def crashes(*_: Any) -> None:
        raise RuntimeError("a crash between the hold and the question")

    with monkeypatch.context() as crashing:
        crashing.setattr(Converter, "_advance", crashes)
        await world.post(ann, CONVERT, input={"idempotencyKey": "held", "quote": quotes[1]})
    assert (await world.sql("select state from conversion order by state"))[1][0] == "held"
    if who == "member":
        await world.sql("update membership set status = 'suspended'")
    else:
        await world.sql("update partner set status = 'suspended' where code = 'airline'")
        async with asyncio.timeout(5):
            while (await world.ask(ann, QUOTE, input=wanted))["quoteConversion"]["errors"] == []:
                await asyncio.sleep(0.05)
    assert (await world.ask(ann, CONVERT, input=given))["convertPoints"] == done
    world.clock.set(world.clock.now() + timedelta(seconds=11))
    await run_job(world, "conversions")
    assert {row[0] for row in await world.sql("select state from conversion")} == {"completed", "released"}
    assert ((await world.sql("select sum(available) from wallet"))[0][0], await miles(world)) == (800, 100)
    assert await world.broken() == []


async def test_an_adjustment_is_not_approved_for_a_partner_that_was_suspended_meanwhile(world: World) -> None:
    member = (await world.ask(await world.operator(), '{ memberByCard(card: "CARD-1") { id } }'))["memberByCard"]["id"]
    given = {"idempotencyKey": "a", "member": member, "programme": "MER", "partner": "fuel", "points": 6000, "reason": "sorry"}
    asked = (await world.ask(await world.operator(), ADJUST, i=given))["adjustPoints"]["adjustment"]["id"]
    fuel, other = await world.token("fuel"), await second_operator(world)
    await world.sql("update partner set status = 'suspended' where code = 'fuel'")
    async with asyncio.timeout(5):
        while (await world.post(fuel, "{ partner { code } }")).status_code == 200:
            await asyncio.sleep(0.05)
    assert codes((await world.ask(other, APPROVE, i={"adjustment": asked}))["approveAdjustment"]) == ["NOT_ALLOWED"]
    assert await world.transactions() == 0


@pytest.mark.parametrize(
    ("at", "occurred", "accepted"),
    [
        (None, None, True),
        ("2026-02-10T12:00:00Z", "2026-02-10T12:03:00Z", True),
        ("2026-02-10T12:00:00Z", None, False),
        ("2026-02-10T12:00:00Z", "2026-02-10T12:06:01Z", False),
        ("2026-02-10T12:00:00Z", "2026-02-10T11:58:59Z", False),
        ("2026-02-10T12:00:00Z", "2026-02-10T11:59:30Z", True),
        (None, "2026-10-15T11:59:57Z", True),
        ("2026-10-15T12:00:50Z", None, True),
        (None, "2026-02-10T12:00:00Z", False),
    ],
)
async def test_an_exchange_occurs_when_its_rate_was_quoted_for(
    world: World, at: str | None, occurred: str | None, accepted: bool
) -> None:
    """Or in the minutes after it: else a partner would choose its rate from one time and its contract from another."""
    await world.record("500.00", occurredAt="2026-02-01T12:00:00Z")
    await world.record("500.00")
    quoted = (await quote(world, 200, **({"at": at} if at else {})))["quote"]
    given = {"idempotencyKey": "k", "quote": quoted["id"], "member": ANN, **({"occurredAt": occurred} if occurred else {})}
    done = (await world.ask("airline", CONVERT, input=given))["convertPoints"]
    assert codes(done) == ([] if accepted else ["INPUT_NOT_ACCEPTED"])
    assert (await world.sql("select count(*) from conversion"))[0][0] == int(accepted)
    assert await miles(world) == (100 if accepted else 0)


async def test_a_rate_that_begins_in_a_moment_is_not_had_for_what_occurs_before_it(world: World) -> None:
    """A till's clock may be a minute ahead: then what it quoted for occurred at that moment, and not before."""
    await world.record("500.00")
    at = "2026-10-15T12:00:50Z"
    quoted = (await quote(world, 200, at=at))["quote"]
    done = (await world.ask("airline", CONVERT, input={"idempotencyKey": "k", "quote": quoted["id"], "member": ANN}))["convertPoints"]
    assert codes(done) == []
    assert (await world.sql("select occurred_at from conversion"))[0][0] == datetime.fromisoformat(at)


async def test_a_keys_quote_is_what_it_was_whatever_rates_are_published_since_and_wherever_it_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a process that does not know of the rate that it was made at yet."""
    await world.record("900.00")
    now, operator = world.clock.now(), await world.operator()
    rate = {"from": "MER", "to": "SKY", "take": 100, "minimum": 100, "increment": 100}
    asked = {"from": "MER", "to": "SKY", "take": 200, "at": now.isoformat(), "member": ANN, "idempotencyKey": "K"}
    async with another(world) as (http, *_):
        headers = {"Authorization": f"Bearer {await world.token('airline')}"}
        assert (await http.post("/graphql", json={"query": "{ programmes { code } }"}, headers=headers)).status_code == 200
        monkeypatch.setattr(catalogue, "STALE_SECONDS", 60)  # it has a snapshot, and goes on with it
        given = {**rate, "give": 70, "validFrom": (now - timedelta(minutes=2)).isoformat()}
        assert codes((await world.ask(operator, PUBLISH, i=given))["publishConversionRate"]) == []
        first = (await world.ask("airline", QUOTE, input=asked))["quoteConversion"]
        assert (first["quote"]["give"], first["quote"]["rate"]) == (140, {"take": 100, "give": 70})
        elsewhere = await http.post("/graphql", json={"query": QUOTE, "variables": {"input": asked}}, headers=headers)
        assert elsewhere.json()["data"]["quoteConversion"] == first
    given = {**rate, "give": 90, "validFrom": (now - timedelta(minutes=1)).isoformat()}
    assert codes((await world.ask(operator, PUBLISH, i=given))["publishConversionRate"]) == []
    assert (await world.ask("airline", QUOTE, input=asked))["quoteConversion"] == first
    for changes in ({"take": 300}, {"at": (now - timedelta(seconds=1)).isoformat()}):
        assert codes((await world.ask("airline", QUOTE, input={**asked, **changes}))["quoteConversion"]) == ["IDEMPOTENCY_KEY_REUSED"]
    assert len(await world.sql("select from quote")) == 1
