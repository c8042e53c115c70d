"""Conversion into the airline's currency, the airline answering over real HTTP, with its faults."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from gateway import ids
from gateway.coalition import catalogue
from gateway.coalition.catalogue import Catalogue
from gateway.coalition.connections import Connections
from gateway.conversion.convert import Converter
from gateway.conversion.orders import ConvertRequest, conversion_by_id
from gateway.database import Database
from gateway.refusals import Refused, StateConflict
from partners.protocols import PROTOCOLS
from tests.access.test_consent import GRANT, WITHDRAW, agree, exchange
from tests.ledger.test_batches import waits
from tests.points import ADJUST, APPROVE, ann_hands_over, ann_logs_in, codes, run_job, second_operator, until_revoked
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
    answers = await asyncio.gather(*(convert(world, quoted["id"]) for _ in range(6)))
    assert answers[0]["conversion"]["state"] == "COMPLETED"
    assert all(answer == answers[0] for answer in answers)
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
    refused = await convert(world, quoted["id"])
    assert [e["code"] for e in refused["errors"]] == ["INSUFFICIENT_POINTS"]
    await world.record("200.00")
    assert await convert(world, quoted["id"]) == refused  # the first answer to this key, for ever
    assert await world.available() == 200
    assert (await convert(world, quoted["id"], "another"))["conversion"]["state"] == "COMPLETED"
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


async def test_after_a_lost_answer_neither_a_refusal_nor_a_dead_line_gives_the_points_back(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    await fault(world, "lose_answer")
    await convert(world, quoted["id"])
    await fault(world, "refuse")
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["STATE_CONFLICT"]
    assert await miles(world) == 100
    await world.stop_airline()
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["STATE_CONFLICT"]
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"]) == (250, 200)
    assert [e["code"] for e in (await world.redeem(450))["errors"]] == ["INSUFFICIENT_POINTS"]
    assert await world.broken() == []


async def test_an_airline_that_was_never_reached_holds_nothing(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    await world.stop_airline()
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["PARTNER_UNAVAILABLE"]
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"]) == (450, 0)
    assert await world.broken() == []


async def test_a_refusal_is_final_and_says_the_same_again(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    await fault(world, "refuse")
    first = await convert(world, quoted["id"])
    assert await convert(world, quoted["id"]) == first
    assert (await world.available(), await miles(world)) == (450, 0)


async def test_a_key_of_a_purchase_or_of_another_quote_is_not_accepted_for_a_conversion(world: World) -> None:
    await world.record("450.00")
    one, two = (await quote(world))["quote"]["id"], (await quote(world))["quote"]["id"]
    answers = await asyncio.gather(convert(world, one, "same"), convert(world, two, "same"))
    assert sorted(len(a["errors"]) for a in answers) == [0, 1]
    assert next(e["code"] for a in answers for e in a["errors"]) == "IDEMPOTENCY_KEY_REUSED"
    assert (await world.available(), await miles(world)) == (250, 100)


async def test_what_was_left_under_way_is_moved_on_without_anybody_asking(world: World) -> None:
    await world.record("900.00")
    for n in range(3):
        quoted = (await quote(world))["quote"]
        await fault(world, "lose_answer")
        await convert(world, quoted["id"], f"k{n}")
    assert (await world.wallet())["held"] == 600
    await fault(world, "silent")
    from datetime import timedelta

    world.clock.set(world.clock.now() + timedelta(minutes=1))
    world.tokens.clear()
    database = Database(world.dsn, 2)
    await database.open()
    catalogue = Catalogue(database)
    connections = Connections(catalogue, PROTOCOLS)
    converter = Converter(database, catalogue, world.clock, connections)
    assert await converter.resume() == 3
    # One was met by silence and does not hold the others up; the next round finds it.
    assert (await world.wallet())["held"] == 200
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    assert await converter.resume() == 1
    await connections.close()
    await database.close()
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"], await miles(world)) == (300, 0, 300)
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


async def test_a_quote_asked_for_again_shows_the_rate_that_it_locked(world: World) -> None:
    first = await quote(world, idempotencyKey="q")
    assert first["quote"]["rate"] == {"take": 200, "give": 100}
    programmes = {row["code"]: row["programme_id"] for row in await world.sql("select code, programme_id from programme")}
    await world.sql(
        "insert into conversion_rate select gen_random_uuid(), $1, $2, 100, 100, minimum, increment, $3 from conversion_rate limit 1",
        programmes["MER"], programmes["SKY"], world.clock.now(),
    )  # fmt: skip
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    async with asyncio.timeout(5):
        while (await quote(world))["quote"]["rate"] != {"take": 100, "give": 100}:
            await asyncio.sleep(0.05)
    assert await quote(world, idempotencyKey="q") == first
    for at in ("2026-10-15T12:00:59Z", "2025-12-01T00:00:00Z"):
        other = await quote(world, idempotencyKey="q", at=at)
        assert [e["code"] for e in other["errors"]] in (["IDEMPOTENCY_KEY_REUSED"], []) if at.startswith("2026") else ["IDEMPOTENCY_KEY_REUSED"]


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


@contextlib.asynccontextmanager
async def another_process(world: World) -> AsyncIterator[tuple[Converter, Catalogue]]:
    """What moves orders in another process, with a snapshot of its own."""
    database = Database(world.dsn, 4)
    await database.open()
    known = Catalogue(database)
    yield Converter(database, known, world.clock, Connections(known, PROTOCOLS)), known
    await database.close()


async def held_order(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:
    """Ann's token, and her conversion of 200 points that a crash left between the hold and the question."""
    async def crashes(*_: Any) -> None:
        raise RuntimeError("a crash between the hold and the question")

    ann = await ann_logs_in(world)
    quoted = (await world.ask(ann, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]
    given = {"idempotencyKey": "k", "quote": quoted["id"]}
    with monkeypatch.context() as crashing:
        crashing.setattr(Converter, "_advance", crashes)
        await world.post(ann, CONVERT, input=given)
    return ann, given


async def test_what_one_process_gives_back_no_other_asks_the_partner_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both wait for the order; the one that knows of the suspension is first, the other has an older snapshot."""
    await world.record("1000.00")
    await held_order(world, monkeypatch)
    world.clock.set(world.clock.now() + timedelta(seconds=11))
    async with another_process(world) as (knows, new), another_process(world) as (does_not, old):
        await old.current()
        await world.sql("update partner set status = 'suspended' where code = 'airline'")
        await new.current()
        monkeypatch.setattr(catalogue, "STALE_SECONDS", 3_600)
        connection = await asyncpg.connect(world.dsn)
        locking = connection.transaction()
        await locking.start()
        await connection.fetch("select from conversion for update")
        first = asyncio.create_task(knows.resume())
        await waits(world, 1)
        second = asyncio.create_task(does_not.resume())
        await waits(world, 2)
        await locking.rollback()
        await connection.close()
        await asyncio.gather(first, second)
    assert [row[0] for row in await world.sql("select state from conversion")] == ["released"]
    assert ((await world.sql("select sum(available) from wallet"))[0][0], await miles(world)) == (1000, 0)
    assert await world.broken() == []


async def test_an_order_that_is_held_again_is_not_given_back_by_who_knew_its_hold_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.record("1000.00")
    ann, given = await held_order(world, monkeypatch)
    async with another_process(world) as (slow, known):
        database = Database(world.dsn, 2)
        await database.open()
        async with database.reading() as tx:
            stale = await conversion_by_id(tx, (await world.sql("select conversion_id from conversion"))[0][0])
        await database.close()
        await world.stop_airline()
        refused = (await world.ask(ann, CONVERT, input=given))["convertPoints"]
        assert [e["code"] for e in refused["errors"]] == ["PARTNER_UNAVAILABLE"]

        async def crashes(*_: Any) -> None:
            raise RuntimeError("a crash between the hold and the question")

        with monkeypatch.context() as crashing:  # held again, under another hold
            crashing.setattr(Converter, "_advance", crashes)
            await world.post(ann, CONVERT, input=given)
        assert [row[0] for row in await world.sql("select state from conversion")] == ["held"]
        with pytest.raises(StateConflict):
            await slow._advance(stale, await known.current())
    assert [row[0] for row in await world.sql("select state from conversion")] == ["held"]
    assert await world.broken() == []
    world.clock.set(world.clock.now() + timedelta(seconds=11))
    await run_job(world, "conversions")
    assert [row[0] for row in await world.sql("select state from conversion")] == ["released"]
    assert [tuple(row) for row in await world.sql("select available, held from wallet where available + held > 0")] == [(1000, 0)]
    assert await world.broken() == []


async def test_one_key_asked_with_many_times_at_once_gets_one_quote(world: World) -> None:
    await world.record("1000.00")
    quotes = await asyncio.gather(*(quote(world, idempotencyKey="q") for _ in range(8)))
    assert {each["quote"]["id"] for each in quotes} == {quotes[0]["quote"]["id"]}
    assert (await world.sql("select count(*) from quote"))[0][0] == 1


async def test_an_order_that_cannot_be_moved_on_lets_the_others_have_their_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.record("1000.00")
    await held_order(world, monkeypatch)
    await world.sql("update hold set state = 'released', released = points where hold_id = (select hold_id from conversion)")
    before = (await world.sql("select updated_at from conversion"))[0][0]
    world.clock.set(world.clock.now() + timedelta(seconds=40))
    await run_job(world, "conversions")
    assert (await world.sql("select updated_at from conversion"))[0][0] > before


async def test_a_quote_that_has_run_out_is_not_used_again_by_an_exchange_that_was_given_back(world: World) -> None:
    await world.record("1000.00")
    quoted = (await quote(world))["quote"]
    await world.stop_airline()
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["PARTNER_UNAVAILABLE"]
    world.clock.set(world.clock.now() + timedelta(minutes=6))
    world.tokens.clear()
    assert [e["code"] for e in (await convert(world, quoted["id"]))["errors"]] == ["QUOTE_EXPIRED"]
    assert [tuple(row) for row in await world.sql("select available, held from wallet where available + held > 0")] == [(1000, 0)]


async def test_many_who_ask_again_while_the_partner_is_away_leave_no_points_behind(world: World) -> None:
    await world.record("1000.00")
    ann = await ann_logs_in(world)
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    quoted = (await world.ask(ann, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]
    quote_id = ids.read("quo", quoted["id"])
    assert quote_id is not None
    await world.stop_airline()
    until = asyncio.get_running_loop().time() + 4

    async def again(converter: Converter) -> int:
        refused = 0
        while asyncio.get_running_loop().time() < until:
            with contextlib.suppress(Refused):
                await converter.convert(member, member, ConvertRequest("k", quote_id, None))
            refused += 1
        return refused

    async with contextlib.AsyncExitStack() as stack:
        processes = [(await stack.enter_async_context(another_process(world)))[0] for _ in range(4)]
        assert sum(await asyncio.gather(*map(again, processes))) > 50
    world.clock.set(world.clock.now() + timedelta(seconds=40))
    await run_job(world, "conversions")
    assert [tuple(row) for row in await world.sql("select available, held from wallet where available + held > 0")] == [(1000, 0)]
    assert await world.broken() == []
