"""The snapshot of the coalition: read once for all who wait, and anew by whoever has changed something."""

import asyncio
from typing import Any

import asyncpg
import pytest

from gateway import ids
from gateway.coalition import catalogue
from gateway.coalition.catalogue import Catalogue, read_coalition
from gateway.database import Database
from gateway.enrolment.enrol import Enrolment, link
from gateway.onboarding.partners import NewPartner, onboard_from_files
from tests.founding import NOW, contract
from tests.world import Place, World


async def test_one_reads_for_all_who_wait_and_they_go_on_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[float] = []
    read = catalogue.read_coalition

    async def counted(*given: Any) -> Any:
        reads.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        return await read(*given)

    monkeypatch.setattr(catalogue, "read_coalition", counted)
    database = Database(place.dsn, 2)
    await database.open()
    shared = Catalogue(database)
    everybody = await asyncio.gather(*(shared.current() for _ in range(2_000)))
    assert len(reads) == 1
    assert len({id(each) for each in everybody}) == 1
    # Nothing has changed: nothing is read again, however old it is.
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)
    for _ in range(3):
        assert await shared.current() is everybody[0]
    assert len(reads) == 1
    writing = await asyncpg.connect(place.dsn)
    await writing.execute("update coalition set name = name")
    await writing.close()
    # Who goes away while it waits takes nothing from the others.
    waiting = [asyncio.create_task(shared.current()) for _ in range(10)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    assert {each.name for each in await asyncio.gather(*waiting[1:])} == {"Test"}
    assert len(reads) == 2
    await database.close()


async def test_whatever_the_snapshot_holds_is_read_again_when_it_was_written_and_no_posting_does_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)
    database = Database(world.dsn, 2)
    await database.open()
    shared = Catalogue(database)
    before = await shared.current()
    written = [f"update {table} set {column} = {column}" for table, column in (
        ("coalition", "name"), ("programme", "name"), ("partner", "name"), ("store", "name"), ("contract", "version"),
        ("conversion_rate", "take"),
    )]  # fmt: skip
    uses = "insert into partner_credit (partner_id, limit_minor, warn_percent, set_at) select partner_id, 1000000, 80, now() from partner where code = 'grocer'"
    for statement in (*written, uses, "delete from partner_credit"):
        await world.sql(statement)
        after = await shared.current()
        assert after is not before, statement
        before = after
    await world.record("50.00")
    await world.redeem(10)
    assert await shared.current() is before
    await database.close()


async def test_who_changes_something_while_another_reads_sees_the_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read, has_read = catalogue.read_coalition, asyncio.Event()

    async def slow(*given: Any) -> Any:
        before = await read(*given)
        has_read.set()
        await asyncio.sleep(0.1)
        return before

    monkeypatch.setattr(catalogue, "read_coalition", slow)
    database = Database(world.dsn, 2)
    await database.open()
    shared = Catalogue(database)
    other = asyncio.create_task(shared.current())
    await has_read.wait()
    await world.sql("update partner set name = 'Changed' where code = 'fuel'")
    shared.changed()
    assert "Changed" in {each.name for each in (await shared.current()).partners.values()}
    await other
    assert "Changed" in {each.name for each in (await shared.current()).partners.values()}
    await database.close()


async def test_what_names_a_partner_that_this_process_has_not_read_yet_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    asked = "query($id: ID!) { member(id: $id) { memberships { partner { code } } } }"
    operator = await world.operator()
    assert "bakery" not in str(await world.ask(operator, asked, id=ids.show("mem", ann)))
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 3_600)
    other = Database(world.dsn, 2)
    await other.open()
    async with other.transaction() as tx:
        await onboard_from_files(tx, [NewPartner("bakery", "The Bakery", contracts=(contract("1"),))], NOW)
        made = next(p for p in (await read_coalition(tx)).partners.values() if p.code == "bakery")
        await link(tx, made.id, [Enrolment("ann", "CARD-1")], NOW)
    early = await world.post(operator, asked, id=ids.show("mem", ann))
    assert (early.status_code, early.headers["Retry-After"]) == (429, "1")
    assert [each["extensions"]["code"] for each in early.json()["errors"]] == ["BUSY"]
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)
    assert "bakery" in str(await world.ask(operator, asked, id=ids.show("mem", ann)))
    await other.close()
