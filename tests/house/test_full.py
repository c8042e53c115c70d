"""A database that answers and can keep nothing: a full disk, or a server that only reads."""

import asyncio

import asyncpg
import pytest

from tests.points import codes
from tests.world import RECORD, World

PURCHASES = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code } } }"


async def change(world: World, statement: str) -> None:
    """In the database as a whole, and for connections that begin after it."""
    connection = await asyncpg.connect(world.dsn)
    name = await connection.fetchval("select current_database()")
    await connection.execute("set transaction_read_only = off; " + statement.format(name=f'"{name}"'))
    await connection.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
    await connection.close()


async def until_ready(world: World, status: int) -> None:
    async with asyncio.timeout(30):
        while (await world.http.get("/readyz")).status_code != status:
            await asyncio.sleep(0.05)


async def test_a_server_that_only_reads_is_told_as_one_that_is_away_and_gets_no_requests(world: World) -> None:
    """As after a failover, while the address still leads to the old one."""
    await change(world, "alter database {name} set default_transaction_read_only = on")
    await until_ready(world, 503)
    assert await world.sql("select 1") == [(1,)]  # it answers
    asked = {"input": world.purchase("10.00", idempotencyKey="k")}
    told = await world.post("grocer", RECORD, **asked)
    assert (told.status_code, told.json()["errors"][0]["extensions"]["code"]) == (503, "DATABASE_AWAY")
    assert "Retry-After" in told.headers
    ready = await world.http.get("/readyz")
    assert (ready.status_code, "only reads" in ready.json()["reason"]) == (503, True)
    assert await world.transactions() == 0
    await change(world, "alter database {name} reset default_transaction_read_only")
    await until_ready(world, 200)
    assert (await world.ask("grocer", RECORD, **asked))["recordPurchase"]["errors"] == []
    assert await world.transactions() == 1


@pytest.mark.parametrize("condition", ["disk_full", "out_of_memory", "io_error"])
async def test_a_batch_that_finds_no_room_is_told_whole_that_the_database_is_away_and_posts_nothing(world: World, condition: str) -> None:
    await world.sql(f"create function no_room() returns trigger language plpgsql as $$ begin raise '{condition}' using errcode = '{condition}'; end $$")
    await world.sql("create trigger no_room before insert on transaction for each statement execute function no_room()")
    batch = [world.purchase("10.00", idempotencyKey=f"k{n}") for n in range(50)]
    told = await world.post("grocer", PURCHASES, i=batch)
    assert (told.status_code, told.json()["errors"][0]["extensions"]["code"]) == (503, "DATABASE_AWAY")
    assert await world.transactions() == 0
    await world.sql("drop trigger no_room on transaction")
    assert [codes(each) for each in (await world.ask("grocer", PURCHASES, i=batch))["recordPurchases"]] == [[]] * 50
    assert await world.transactions() == 50
    assert await world.broken() == []
