"""The outbox: everything that happened, in order, from any cursor, without a gap and never twice."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from gateway.database import Database
from gateway.events.feed import Feed
from gateway.events.outbox import BEGINNING, BadCursor, Event, OfAnotherServer, check_server, read_events
from tests.points import hold, release
from tests.world import World


async def read(world: World, after: str = BEGINNING, batches: int = 100) -> list[Event]:
    database = Database(world.dsn, 2)
    await database.open()
    try:
        async with database.reading() as tx:
            return await read_events(tx, after, batches)
    finally:
        await database.close()


async def test_everything_that_happened_is_there_in_its_order_and_any_cursor_goes_on_from_its_place(world: World) -> None:
    await world.record("100.00", receipt="r")
    await world.redeem(10)
    placed = (await hold(world, 20))["hold"]
    await release(world, placed["id"])
    await world.give_back("r", total={"amount": "5.00", "currency": "USD"})
    events = await read(world)
    assert [event.kind for event in events] == ["earning", "redemption", "hold", "release", "return"]
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    assert {event.member_id for event in events} == {member}
    for n, event in enumerate(events):
        assert await read(world, event.cursor) == events[n + 1 :]
    some: list[Event] = []
    while found := await read(world, some[-1].cursor if some else BEGINNING, batches=1):
        some += found
    assert some == events


async def test_a_batch_of_many_is_an_event_each_and_a_refusal_is_none(world: World) -> None:
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code } } }"
    await world.ask("grocer", many, i=[world.purchase("1.00"), world.purchase("-1.00"), world.purchase("2.00")])
    await world.redeem(500)
    assert [event.kind for event in await read(world)] == ["earning", "earning"]


async def test_what_a_running_transaction_may_come_before_waits_for_it(world: World) -> None:
    connection = await asyncpg.connect(world.dsn)
    running = connection.transaction()
    await running.start()
    await connection.fetchval("select pg_current_xact_id()")
    await world.record("5.00")
    assert await read(world) == []
    await running.rollback()
    await connection.close()
    assert [event.kind for event in await read(world)] == ["earning"]


async def follows(feed: Feed, member: UUID, after: str | None = None) -> tuple[AsyncIterator[tuple[str, Event | None]], str]:
    """A subscription and the cursor of now; with `after`, what it tells first."""
    told = feed.follow(member, after)
    cursor, _ = await asyncio.wait_for(anext(told), 5)
    return told, cursor


async def test_a_cursor_of_a_process_that_has_read_further_goes_on_at_one_that_has_not(world: World, database: Database) -> None:
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    behind, further = Feed(database), Feed(database)
    stays, before = await follows(behind, member)
    assert before == BEGINNING
    await world.record("1.00")
    ((told, _),) = [(event.cursor, event.kind) for event in await read(world)]
    _, now = await follows(further, member)
    assert now == told
    coming_back = asyncio.create_task(anext(behind.follow(member, now)))
    await asyncio.sleep(0.3)
    assert not coming_back.done()
    await world.record("2.00")
    await behind._tell()
    seen = [(await asyncio.wait_for(anext(stays), 5))[0] for _ in range(2)]
    assert seen == [event.cursor for event in await read(world)]
    assert (await asyncio.wait_for(coming_back, 5))[0] == seen[1]


async def test_the_cursor_of_now_is_that_of_the_last_batch_whatever_posted_nothing_since(world: World, database: Database) -> None:
    """A crash of the database keeps every batch, and counts anew the transactions that posted nothing: new batches would lie
    before a cursor that had counted them."""
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    await world.record("1.00")
    for _ in range(3):
        await world.sql("select pg_current_xact_id()")
    _, now = await follows(Feed(database), member)
    assert [now] == [event.cursor for event in await read(world)]


async def test_who_follows_a_ledger_that_is_brought_back_to_an_earlier_moment_is_told(world: World, database: Database) -> None:
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    await world.record("1.00")
    await world.record("2.00")
    feed = Feed(database)
    live, now = await follows(feed, member)
    await world.sql("delete from outbox where (xid, batch_id) = (select xid, batch_id from outbox order by xid desc limit 1)")
    await world.record("3.00")
    with pytest.raises(BadCursor, match=f"{now}.*begin without a cursor"):
        await read(world, now)
    with pytest.raises(BadCursor, match=now):
        await follows(Feed(database), member, now)
    await feed._tell()
    with pytest.raises(BadCursor, match="begin without a cursor"):
        await asyncio.wait_for(anext(live), 5)
    _, again = await follows(feed, member)
    assert again == (await read(world))[-1].cursor


async def test_what_is_no_cursor_is_refused(world: World) -> None:
    await world.record("1.00")
    ((batch, _),) = [event.cursor.rsplit("-", 1) for event in await read(world)]
    nowhere = ("999999999999-00000000-0000-0000-0000-000000000000-0", f"1{batch}-1", f"{batch}-2")
    for text in ("", "1", "x-y-z", "1-00000000-0000-0000-0000-000000000000-1; drop table outbox", *nowhere):
        with pytest.raises(BadCursor):
            await read(world, text)
    assert await read(world, f"{batch}-1") == []


async def test_a_ledger_that_a_dump_brought_to_another_server_is_not_served(world: World) -> None:
    """Its batches carry numbers that this server has not come to: what is new would be sealed and told never."""
    await world.record("1.00")
    database = Database(world.dsn, 2)
    await database.open()
    async with database.reading() as tx:
        await check_server(tx)
        await world.sql("update outbox set xid = (xid::text::bigint + 1000000)::text::xid8")
        with pytest.raises(OfAnotherServer, match=r"docs/operating\.md"):
            await check_server(tx)
    await database.close()
