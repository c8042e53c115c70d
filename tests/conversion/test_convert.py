"""Conversion into the airline's currency, the airline answering over real HTTP, with its faults."""

import asyncio
from datetime import timedelta
from typing import Any

import structlog

from gateway import ids
from gateway.coalition.catalogue import Catalogue
from gateway.coalition.connections import Connections
from gateway.conversion.convert import Converter
from gateway.database import Database
from gateway.ledger.post import Ledger
from partners.protocols import PROTOCOLS
from tests.access.consenting import agree, exchange
from tests.conversion.exchanging import CONVERT, QUOTE, convert, fault, miles, quote
from tests.points import ann_hands_over, run_job
from tests.world import World


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
    order = ids.show("cnv", (await world.sql("select conversion_id from conversion"))[0][0])
    assert f"under {order}." in answer["errors"][0]["message"]
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"], await miles(world)) == (450, 0, 0)
    assert await world.broken() == []


async def test_what_the_airline_says_of_its_customer_is_told_to_nobody_and_kept_nowhere(world: World) -> None:
    """It names the account, which only who may read the profile is told, and may name the person."""
    await world.record("450.00")
    await agree(world, "points:convert")
    acting = (await exchange(world, await ann_hands_over(world, "points:convert"))).json()["access_token"]
    account = "ann.private@example.org"
    for table in ("membership", "external_id"):
        await world.sql(f"update {table} set external_id = '{account}' where external_id = 'ann' and partner_id = (select partner_id from partner where code = 'airline')")
    said: list[Any] = []
    for key, modes in (("k", ["refuse"]), ("l", ["silent", "refuse"])):
        quoted = (await world.ask(acting, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]
        asked = {"idempotencyKey": key, "quote": quoted["id"]}
        for mode in modes:
            await fault(world, mode)
            said.append((await world.ask(acting, CONVERT, input=asked))["convertPoints"]["errors"])
    await fault(world, "refuse")
    world.clock.set(world.clock.now() + timedelta(minutes=5))
    with structlog.testing.capture_logs() as logs:
        await run_job(world, "conversions")
    assert "refuses what it may have credited" in f"{logs}"
    kept = await world.sql("select to_jsonb(c)::text from conversion c")
    assert len(kept) == 2
    for told in (f"{said}", f"{logs}", f"{kept}"):
        assert "private" not in told
        assert "closed" not in told
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
    converter = Converter(database, catalogue, Ledger(database, world.clock, 2, lambda: None), world.clock, connections)
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
    assert (await quote(world, idempotencyKey="then", at=(world.clock.now() - timedelta(hours=1)).isoformat()))["errors"] == []
    assert [e["code"] for e in (await quote(world, idempotencyKey="then"))["errors"]] == ["IDEMPOTENCY_KEY_REUSED"]  # now is another moment
    for at in ("2026-10-15T12:00:59Z", "2025-12-01T00:00:00Z"):
        other = await quote(world, idempotencyKey="q", at=at)
        assert [e["code"] for e in other["errors"]] in (["IDEMPOTENCY_KEY_REUSED"], []) if at.startswith("2026") else ["IDEMPOTENCY_KEY_REUSED"]
