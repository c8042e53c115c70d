"""The outbox: everything that happened, in order, from any cursor, without a gap and never twice."""

import asyncio

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


async def test_a_cursor_of_a_process_that_has_read_further_goes_on_at_one_that_has_not(world: World, database: Database) -> None:
    """Where nothing happens transactions are counted all the same: the cursor of now lies behind the last batch that was read."""
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    behind, further = Feed(database), Feed(database)
    stays = behind.follow(member, None)
    await anext(stays)
    for _ in range(3):
        await world.sql("select pg_current_xact_id()")
    now, _ = await anext(further.follow(member, None))
    await world.record("1.00")
    ((told, _),) = [(event.cursor, event.kind) for event in await read(world)]
    coming_back = [asyncio.create_task(anext(behind.follow(member, cursor))) for cursor in (now, told)]
    async with asyncio.timeout(5):
        while len(behind._followers[member]) < 3:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in coming_back)
    await world.record("2.00")
    await behind._tell()
    seen = [(await asyncio.wait_for(task, 5))[0] for task in coming_back]
    assert seen == [event.cursor for event in await read(world)]
    assert seen[0] == told
    with pytest.raises(BadCursor):
        await anext(behind.follow(member, "999999999999-00000000-0000-0000-0000-000000000000-0"))


async def test_what_is_no_cursor_is_refused(world: World) -> None:
    for text in ("", "1", "x-y-z", "1-00000000-0000-0000-0000-000000000000-1; drop table outbox"):
        with pytest.raises(BadCursor):
            await read(world, text)


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
