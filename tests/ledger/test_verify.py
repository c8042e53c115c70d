"""Every invariant can fail: each is broken on purpose, in every way it looks for, past the walls, and named."""

import shutil
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from gateway.database import Database
from gateway.embedded import EmbeddedPostgres
from gateway.ledger.verify import invariants, verify
from tests.adjustment.test_adjust import adjust
from tests.conftest import create_database, open_folder
from tests.conversion.exchanging import convert, quote
from tests.credit.test_credit import pay, set_credit
from tests.founding import Founded
from tests.ledger.breaches import BREAK, UNCHECKED
from tests.points import bob_joins, capture, hold, mint, release, reverse, run_job, terms
from tests.settlement.test_close import close_through
from tests.transfer.test_transfer import give
from tests.world import Place, World, open_world


async def live(world: World) -> None:
    """Everything happens at least once, to Ann and Bob: some of it in a month that is closed, some a year later."""
    await bob_joins(world)
    await set_credit(world, "1000.00")
    await pay(world, "1.00", "p")
    await world.record("900.00", receipt="r")
    placed = (await hold(world, 50))["hold"]
    await capture(world, placed["id"], 20)
    await release(world, placed["id"])
    redeemed = (await world.redeem(40))["redemption"]
    await reverse(world, redeemed["id"], 10)
    assert (await give(world, 30))["errors"] == []
    assert (await adjust(world, 70))["errors"] == []
    assert (await adjust(world, -20))["errors"] == []
    await world.give_back("r", total={"amount": "100.00", "currency": "USD"})
    await world.redeem(300)
    quoted = (await quote(world))["quote"]
    assert (await convert(world, quoted["id"]))["errors"] == []
    await world.record("30.00", receipt="spent", member={"externalId": "bob"})
    assert (await world.redeem(60, "grocer", member={"externalId": "bob"}))["errors"] == []
    assert (await world.give_back("spent"))["purchaseReturn"]["owed"] == 30
    await world.record("10.00", member={"externalId": "bob"})
    await close_through(world, 10)

    await terms(world, pendingDays=1)
    await world.record("5.00")
    world.clock.set(world.clock.now() + timedelta(days=260))
    world.tokens.clear()
    operator = (await world.sql("select account_id from account where login = 'olga'"))[0]["account_id"]
    world.tokens["operator"] = await mint(world, "operator", operator)
    assert await run_job(world, "mature") == 1
    assert await run_job(world, "expire") > 0
    await terms(world, pendingDays=300)
    await world.record("60.00")
    await terms(world, pendingDays=0)
    await world.record("80.00")
    world.clock.set(world.clock.now() + timedelta(days=40))
    world.tokens.clear()
    await world.record("70.00")
    await hold(world, 10)
    await world.redeem(15)
    await run_job(world, "credit")
    await run_job(world, "seal")
    assert await world.broken() == []


@pytest.fixture(scope="session")
async def lively(server: EmbeddedPostgres, founded: Founded) -> str:
    """A database in which everything has happened."""
    folder = open_folder()
    dsn = await create_database(server, "lively", founded.template)
    async with open_world(Place(dsn, folder, founded)) as world:
        await live(world)
    shutil.rmtree(folder, ignore_errors=True)
    return dsn


def test_every_invariant_is_broken_here_on_purpose() -> None:
    assert {invariant.name for invariant in invariants()} == set(BREAK)
    assert all(invariant.sentence for invariant in invariants())


@pytest.mark.parametrize("name", list(BREAK))
async def test_a_broken_invariant_is_found_in_every_way_it_can_break(lively: str, name: str) -> None:
    invariant = next(i for i in invariants() if i.name == name)
    connection: Any = await asyncpg.connect(lively)
    unnoticed = []
    for breach in BREAK[name]:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(UNCHECKED)
        done = [await connection.execute(statement) for statement in breach.split("; ")]
        if done[-1].endswith(" 0") or not await connection.fetch(invariant.text):
            unnoticed.append((breach, done))
        await transaction.rollback()
    whole = await connection.fetch(invariant.text)
    await connection.close()
    assert (unnoticed, whole) == ([], [])


async def test_verify_names_what_is_broken(server: EmbeddedPostgres, lively: str) -> None:
    dsn = await create_database(server, "broken", "lively")
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute("update statement set returned = returned + 1 where returned > 0")
    await connection.close()
    database = Database(dsn, 2)
    await database.open()
    broken = [check async for check in verify(database) if not check.holds]
    await database.close()
    assert [check.name for check in broken] == ["statements_equal_the_sums"]
    assert broken[0].breaches == 1


async def test_a_ledger_that_takes_what_runs_out_last_is_found_out(world: World) -> None:
    function = (await world.sql("select pg_get_functiondef('choose_lots'::regproc) as text"))[0]["text"]
    assert "order by l.expires_on," in function
    await world.sql(function.replace("order by l.expires_on,", "order by l.expires_on desc,"))
    await world.record("30.00")
    for days in (40, 1):
        world.clock.set(world.clock.now() + timedelta(days=days))
        world.tokens.clear()
        await world.record("20.00")
    assert await world.broken() == []
    world.clock.set(world.clock.now() + timedelta(hours=1))
    world.tokens.clear()
    assert (await world.redeem(25))["errors"] == []
    assert await world.broken() == ["what_runs_out_first_is_taken_first"]
