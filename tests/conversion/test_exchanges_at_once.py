"""Exchanges of several processes and of many who ask at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from gateway import ids
from gateway.coalition import catalogue
from gateway.coalition.catalogue import Catalogue
from gateway.coalition.connections import Connections
from gateway.coalition.connector import Credit, PartnerRefused, PartnerUnreached
from gateway.conversion import orders
from gateway.conversion.convert import ASKING_AT_MOST, Converter
from gateway.conversion.orders import Conversion, ConvertRequest, conversion_by_id
from gateway.database import Database
from gateway.ledger.post import Ledger
from gateway.members.lookup import Membership
from gateway.refusals import Refused, StateConflict
from partners.protocols import PROTOCOLS
from tests.conversion.exchanging import CONVERT, QUOTE, convert, miles, quote
from tests.ledger.test_batches import waits
from tests.points import ann_logs_in, bob_joins, codes, hold, run_job
from tests.world import World


async def test_the_same_conversion_at_once_happens_once(world: World) -> None:
    await world.record("450.00")
    quoted = (await quote(world))["quote"]
    answers = await asyncio.gather(*(convert(world, quoted["id"]) for _ in range(6)))
    assert answers[0]["conversion"]["state"] == "COMPLETED"
    assert all(answer == answers[0] for answer in answers)
    assert (await world.available(), await miles(world)) == (250, 100)
    assert await world.broken() == []


@contextlib.asynccontextmanager
async def another_process(world: World) -> AsyncIterator[tuple[Converter, Catalogue]]:
    """What moves orders in another process, with a snapshot of its own."""
    database = Database(world.dsn, 4)
    await database.open()
    known = Catalogue(database)
    yield Converter(database, known, Ledger(database, world.clock, 2, lambda: None), world.clock, Connections(known, PROTOCOLS)), known
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


async def test_a_key_whose_order_another_process_stores_in_this_very_moment_gets_that_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is looked for before it is there, and what the key was answered after that."""
    await world.record("1000.00")
    quoted = (await quote(world))["quote"]
    look = orders.check_kept
    first: list[Any] = []

    async def look_later(*given: Any) -> None:
        if not first:
            first.append(None)
            first[0] = await convert(world, quoted["id"])
        await look(*given)

    monkeypatch.setattr(orders, "check_kept", look_later)
    ((airline, ann),) = await world.sql("select p.partner_id, c.member_id from partner p, card c where p.code = 'airline' and c.number = 'CARD-1'")
    async with another_process(world) as (converter, _):
        order = await converter.convert(airline, ann, ConvertRequest("k", ids.read("quo", quoted["id"]), None))
    assert ids.show("txn", order.id) == first[0]["conversion"]["id"]
    assert order.state == "completed"
    assert ((await world.wallet())["available"], await miles(world)) == (800, 100)
    assert await world.broken() == []


async def test_what_is_refused_while_another_process_stores_the_order_of_the_key_is_that_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The points come between the refusal and its being kept."""
    await world.record("100.00")
    quoted, post = (await quote(world))["quote"], Database.post
    ((airline, ann),) = await world.sql("select p.partner_id, c.member_id from partner p, card c where p.code = 'airline' and c.number = 'CARD-1'")
    request, others = ConvertRequest("k", ids.read("quo", quoted["id"]), None), []

    async def post_later(self: Database, statement: Any, **given: Any) -> Any:
        if statement.name == "keep_refusal" and not others:
            others.append(None)
            await world.record("100.00")
            async with another_process(world) as (converter, _):
                others[0] = await converter.convert(airline, ann, request)
        return await post(self, statement, **given)

    monkeypatch.setattr(Database, "post", post_later)
    async with another_process(world) as (converter, _):
        order = await converter.convert(airline, ann, request)
    assert (order, order.state) == (others[0], "completed")
    assert ((await world.wallet())["available"], await miles(world)) == (0, 100)
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


@pytest.mark.parametrize("told", [PartnerUnreached("cannot connect"), PartnerRefused("no such account")])
async def test_who_comes_back_when_another_asks_too_gives_nothing_back(
    world: World, monkeypatch: pytest.MonkeyPatch, told: Exception
) -> None:
    """A process that stood still for longer than anybody asks knows nothing of who asked meanwhile."""
    await world.record("500.00")
    quoted = (await quote(world))["quote"]["id"]
    ask, asked, goes_on, done = Converter._ask, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(self: Converter, order: Conversion, account: Membership) -> Credit:
        if not asked.is_set():
            asked.set()
            await goes_on.wait()
            raise told
        credit = await ask(self, order, account)
        goes_on.set()
        await done.wait()
        return credit

    monkeypatch.setattr(Converter, "_ask", late)
    slow = asyncio.create_task(convert(world, quoted, "k"))
    await asked.wait()
    world.clock.set(world.clock.now() + ASKING_AT_MOST)
    other = asyncio.create_task(run_job(world, "conversions"))
    assert codes(await slow) == ["STATE_CONFLICT"]
    assert (await world.wallet())["held"] == 200
    done.set()
    await other
    assert [row["state"] for row in await world.sql("select state from conversion")] == ["completed"]
    assert await miles(world) == 100
    wallet = await world.wallet()
    assert (wallet["available"], wallet["held"]) == (300, 0)
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


async def test_one_key_has_one_deed_whatever_is_asked_for_with_it_at_once_and_for_whom(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.record("1000.00")
    await bob_joins(world)
    link = "mutation($i: LinkMembershipInput!) { linkMembership(input: $i) { errors { code } } }"
    assert codes((await world.ask("airline", link, i={"card": "CARD-2", "externalId": "bob"}))["linkMembership"]) == []
    await world.record("1000.00", member={"externalId": "bob"})
    opened, find_or_open = asyncio.Event(), orders.find_or_open

    async def slowly(*given: Any) -> Any:
        opened.set()
        await asyncio.sleep(0.3)  # by then the other one has asked, and would be done
        return await find_or_open(*given)

    monkeypatch.setattr("gateway.conversion.convert.find_or_open", slowly)
    converting = asyncio.create_task(convert(world, (await quote(world))["quote"]["id"], "one"))
    await opened.wait()
    bobs = {"who": "airline", "idempotencyKey": "one", "member": {"externalId": "bob"}}
    redeemed, held, converted = await asyncio.gather(world.redeem(5, **bobs), hold(world, 5, **bobs), converting)
    assert (codes(converted), codes(redeemed), codes(held)) == ([], ["IDEMPOTENCY_KEY_REUSED"], ["IDEMPOTENCY_KEY_REUSED"])
    assert [tuple(row) for row in await world.sql("select available, held from wallet order by available")] == [(800, 0), (1000, 0)]
    assert await world.broken() == []
