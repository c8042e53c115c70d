"""How a process learns what was revoked: only what is new, nothing twice lost, and past readings that hang."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway import main
from gateway.access import revocations
from gateway.access.follow import WATCH_SECONDS, follow
from gateway.access.revocations import Revocations, revoke
from gateway.database import Database, DatabaseAway
from gateway.settings import read_settings
from tests.founding import NOW
from tests.lines import line_to
from tests.points import until_revoked
from tests.world import World, engine, free_door, said_by, started

MARK = "insert into revocation (mark, revoked_at, until) values ($1, $2, $3)"


@asynccontextmanager
async def revoking(world: World, mark: str) -> AsyncIterator[Any]:
    """Somebody who revokes, and takes its time to commit."""
    connection = await asyncpg.connect(world.dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(MARK, mark, NOW, NOW + timedelta(minutes=10))
    try:
        yield transaction
    finally:
        await connection.close()


async def read(database: Database, known: Revocations, after: timedelta = timedelta()) -> None:
    async with database.reading() as tx:
        await known.read_on(tx, NOW + after)


def knows(known: Revocations, *marks: str) -> list[bool]:
    return [known.hit((mark,), 0) for mark in marks]


async def age(world: World) -> float:
    """How long ago the gateway read what was revoked, as its metrics say it."""
    lines = (await world.http.get("/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith("gateway_revocations_age_seconds ")).split()[1])


async def revoke_token(world: World, token: str) -> None:
    answer = await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])
    assert answer.status_code == 200


async def end(database: Database, mark: str, after: timedelta = timedelta()) -> None:
    async with database.transaction() as tx:
        await revoke(tx, mark, NOW + after)


async def test_what_is_committed_late_is_not_missed_by_who_reads_only_what_is_new(world: World, database: Database) -> None:
    known = Revocations()
    async with revoking(world, "jti:late") as late:
        await end(database, "jti:early")
        await read(database, known)
        await read(database, known)
        assert knows(known, "jti:early", "jti:late") == [True, False]
        await late.commit()
    await read(database, known)
    assert knows(known, "jti:early", "jti:late") == [True, True]


async def test_what_was_read_is_not_read_again(world: World, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Revocations()
    for n in range(30):
        await end(database, f"jti:{n}")
    await read(database, known)
    learnt: list[str] = []
    monkeypatch.setattr(known, "learn", lambda rows: learnt.extend(row["mark"] for row in rows))
    await end(database, "jti:new")
    await read(database, known)
    assert learnt == ["jti:new"]


async def test_a_mark_that_is_revoked_again_is_read_again_and_never_goes_back(world: World, database: Database) -> None:
    known = Revocations()
    issued = int(NOW.timestamp()) + 60
    await end(database, "sub:ann")
    await read(database, known)
    assert not known.hit(("sub:ann",), issued)
    await end(database, "sub:ann", timedelta(seconds=90))
    await read(database, known)
    assert known.hit(("sub:ann",), issued)
    await end(database, "sub:ann", timedelta(seconds=30))  # of a process whose clock is behind
    await read(database, known)
    assert known.hit(("sub:ann",), issued)


async def test_what_has_ended_by_itself_is_forgotten(world: World, database: Database) -> None:
    known = Revocations()
    await end(database, "jti:old")
    await read(database, known)
    kept = 2 * revocations.TOKEN_SECONDS + revocations.PROCESS_AHEAD_SECONDS
    await read(database, known, timedelta(seconds=kept - 1))
    assert knows(known, "jti:old") == [True]
    await read(database, known, timedelta(seconds=kept))
    assert knows(known, "jti:old") == [False]


async def test_over_another_connection_all_is_read_anew_because_it_may_be_another_server(world: World, database: Database) -> None:
    known = Revocations()
    await read(database, known)
    known._since = str(2**40)  # as one that was ahead of what was promoted, or restored, since
    await end(database, "jti:of-another-server")
    again = Database(world.dsn, 1)
    await again.open()
    await read(again, known)
    assert knows(known, "jti:of-another-server") == [True]
    await again.close()


async def test_very_many_are_read_in_pages_also_those_of_one_transaction(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "ROWS_AT_ONCE", 7)
    known = Revocations()
    async with database.transaction() as tx:
        for n in range(20):
            await revoke(tx, f"jti:{n}", NOW)
    for n in range(20, 35):
        await end(database, f"jti:{n}")
    await read(database, known)
    assert knows(known, *(f"jti:{n}" for n in range(35))) == [True] * 35
    assert known.rows == 35


async def test_a_process_knows_what_was_revoked_before_it_lets_anybody_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await world.token("grocer")
    await revoke_token(world, token)
    await until_revoked(world, token)
    monkeypatch.setattr(main, "follow", lambda *_: asyncio.Event().wait())  # it learns nothing after its start
    door, port = free_door()
    settings = read_settings({}, data_dir=world.data_dir, port=port, issuer=world.url, jobs=())
    server, task = await started(await main.create_app(settings, world.dsn, world.clock, engine()), door)
    try:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await world.http.post(f"http://127.0.0.1:{port}/graphql", json={"query": "{ __typename }"}, headers=headers)
        assert answer.status_code == 401
    finally:
        server.should_exit = True
        await task


async def test_a_connection_that_hangs_is_cut_and_what_is_revoked_meanwhile_takes_effect(
    world: World, database: Database, tmp_path: Path
) -> None:
    signer, vault = await world.signer(database), await world.vault(database)
    async with line_to(world.dsn, tmp_path) as (dsn, line), Database(dsn, 1, WATCH_SECONDS) as behind:
        following = asyncio.create_task(follow(behind, vault, signer, world.clock))
        await end(database, "jti:before")
        async with asyncio.timeout(3):
            while not signer.revocations.hit(("jti:before",), 0):
                await asyncio.sleep(0.02)
        opened = line.opened
        line.cut()
        await end(database, "jti:meanwhile")
        async with asyncio.timeout(6):
            while not signer.revocations.hit(("jti:meanwhile",), 0):
                await asyncio.sleep(0.02)
        assert line.opened > opened
        following.cancel()


async def test_whatever_the_database_says_while_it_comes_back_the_reading_goes_on(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a dump is restored: the server is away, is there without the database, and has it at last."""
    signer, vault = await world.signer(database), await world.vault(database)
    own, left = Database(world.dsn, 1), [DatabaseAway("away"), asyncpg.InvalidCatalogNameError("none"), ValueError("what?")]
    await own.open()
    opened = own.open

    async def comes_back() -> None:
        if left:
            raise left.pop(0)
        await opened()

    monkeypatch.setattr(own, "open", comes_back)
    monkeypatch.setattr("gateway.access.follow.FOLLOW_SECONDS", 0.05)
    following = asyncio.create_task(follow(own, vault, signer, world.clock))
    await asyncio.sleep(0.2)
    await own.close()  # every connection is gone
    await end(database, "jti:meanwhile")
    async with asyncio.timeout(5):
        while not signer.revocations.hit(("jti:meanwhile",), 0):
            await asyncio.sleep(0.02)
    assert left == []
    assert not following.done()
    following.cancel()
    await own.close()


async def test_a_database_that_is_not_there_yet_is_away(world: World) -> None:
    for dsn in (world.dsn.replace("/test", "/nothing-test"), world.dsn.replace("gateway@", "nobody@")):
        assert dsn != world.dsn
        with pytest.raises(DatabaseAway):
            await Database(dsn, 1).open()


async def test_a_single_token_is_kept_until_it_would_have_ended_by_itself(world: World) -> None:
    token = await world.token("grocer")
    await revoke_token(world, token)
    (kept,) = await world.sql("select until from revocation where mark like 'jti:%'")
    assert kept["until"].timestamp() == said_by(token)["exp"] + revocations.PROCESS_AHEAD_SECONDS


async def test_a_lock_on_what_is_revoked_holds_the_reading_up_for_as_long_as_it_lasts_and_no_longer(world: World) -> None:
    token = await world.token("grocer")
    connection = await asyncpg.connect(world.dsn)
    async with connection.transaction():
        await connection.execute("insert into revocation (mark, revoked_at, until) values ('jti:x', now(), now())")
        await connection.execute("lock table revocation in access exclusive mode")
        async with asyncio.timeout(10):
            while await age(world) < 2.5:  # longer than a statement of the reading may take
                await asyncio.sleep(0.05)
        assert (await world.post(token, "{ __typename }")).status_code == 200
    await connection.close()
    await revoke_token(world, token)
    await until_revoked(world, token)


async def test_metrics_say_how_long_ago_a_process_read_what_was_revoked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= await age(world) < 5
    monkeypatch.setattr(Revocations, "age_seconds", 12.0)
    assert await age(world) == 12
    unready = await world.http.get("/readyz")
    assert (unready.status_code, unready.json()["reason"]) == (503, "What was revoked was last read 12 seconds ago.")
    monkeypatch.setattr(Revocations, "age_seconds", 9.0)
    assert (await world.http.get("/readyz")).status_code == 200
