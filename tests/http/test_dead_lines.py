"""Connections to the database that have died without a word, as where its address moved to another machine."""

import asyncio
import socket
from contextlib import aclosing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from gateway import main
from gateway.access.audit import Audit, Deed
from gateway.access.revocations import revoke
from gateway.database import Database, DatabaseAway, pools
from gateway.events.feed import Feed
from gateway.ledger.seal import verify_chain
from gateway.settings import read_settings
from tests.lines import Line, line_to
from tests.points import run_job
from tests.world import RECORD, World, engine, free_door, started

READ = '{ membership(ref: {externalId: "ann"}) { wallets { available } } }'
AT_ONCE = 20  # of each kind: more than there are connections


async def test_what_died_without_a_word_is_found_out_once_for_all(world: World, tmp_path: Path) -> None:
    """One by one each would keep whoever takes it waiting for as long as a statement may take, a minute."""
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    async with line_to(world.dsn, tmp_path) as (dsn, line):
        door, port = free_door()
        settings = read_settings({}, data_dir=world.data_dir, port=port, issuer=world.url, jobs=())
        server, task = await started(await main.create_app(settings, dsn, world.clock, engine()), door)
        url = f"http://127.0.0.1:{port}"

        async def all_kinds(name: str) -> list[httpx.Response]:
            wanted = [{"query": READ} for _ in range(AT_ONCE)]
            for n in range(AT_ONCE):
                wanted.append({"query": RECORD, "variables": {"input": world.purchase("1.00", idempotencyKey=f"{name} {n}")}})
            asked = [world.http.post(f"{url}/graphql", json=each, headers=headers) for each in wanted]
            form, auth = {"grant_type": "client_credentials"}, world.clients["grocer"]
            asked += [world.http.post(f"{url}/oauth/token", data=form, auth=auth) for _ in range(AT_ONCE)]
            return await asyncio.gather(*asked)

        try:
            assert {each.status_code for each in await all_kinds("before")} == {200}
            opened = line.opened
            line.cut()
            async with asyncio.timeout(20):
                meanwhile = await all_kinds("meanwhile")
                after = await all_kinds("after")
            assert {each.status_code for each in meanwhile} <= {200, 503}
            assert {each.status_code for each in after} == {200}
            assert line.opened > opened
            again = await all_kinds("meanwhile")  # what was refused has not been done, and what was done is told once more
            assert {each.status_code for each in again} == {200}
            assert await world.transactions() == 3 * AT_ONCE
        finally:
            server.should_exit = True
            await task


async def test_the_kernel_tells_where_nobody_takes_in_what_is_sent_over_tcp(world: World) -> None:
    where = urlsplit(world.dsn)
    line = Line(f"{parse_qs(where.query)['host'][0]}/.s.PGSQL.5432")
    server = await asyncio.start_server(line.connected, "127.0.0.1")
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Database(f"postgresql://gateway@{address}{where.path}", 1) as database, database.reading() as tx:
        ours = tx._connection._con._transport.get_extra_info("socket")
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) + 3 * ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) < 15
    server.close()


async def test_what_a_machine_that_vanished_had_begun_is_ended_by_the_server(
    world: World, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep its locks, and every reader of the outbox in every process waiting, until the server's own kernel noticed."""
    for begun in (database.transaction(), database.reading_for(None, None), database.reading()):
        async with begun as tx:
            assert await tx._connection.fetchval("show idle_in_transaction_session_timeout") == "10s"
    monkeypatch.setitem(pools.OWN_SETTINGS, "idle_in_transaction_session_timeout", "3s")
    left = "select count(*) from pg_stat_activity where state = 'idle in transaction' and datname = current_database()"
    async with line_to(world.dsn, tmp_path) as (dsn, line):
        vanished = Database(dsn, 1)
        await vanished.open()
        audit = Audit(vanished, await world.vault(database), world.clock)

        async def vanish() -> None:
            async with vanished.transaction() as tx:
                await audit.note_in(tx, Deed("nobody", None, "x", "vanish", "ok"))
                line.stall()
                await gone.wait()
                await revoke(tx, "jti:late", world.clock.now())

        gone = asyncio.Event()
        vanishing = asyncio.create_task(vanish())
        async with asyncio.timeout(10):
            while await world.sql(left) == [(0,)]:
                await asyncio.sleep(0.02)
            await world.record("5.00")
            await run_job(world, "seal")
            assert await world.sql("select from block") == []  # it may still come before
            await world.operator()  # who logs in is noted
            while await world.sql("select from block") == []:
                await run_job(world, "seal")
        assert await world.sql(left) == [(0,)]
        await vanished.close()
        gone.set()
        with pytest.raises(DatabaseAway):
            await vanishing
        assert await world.sql("select from audit_log where action = 'vanish'") == []


async def said_nothing(world: World) -> None:
    """Begins something, says nothing until the server has ended it, and goes on."""
    async with Database(world.dsn, 1) as slow, slow.transaction() as tx:
        ended = asyncio.Event()
        tx._connection.add_termination_listener(lambda _: ended.set())
        await revoke(tx, "jti:late", world.clock.now())
        await ended.wait()
        await revoke(tx, "jti:later", world.clock.now())


async def test_who_comes_too_late_to_its_own_transaction_has_done_nothing_and_begins_anew(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pools.OWN_SETTINGS, "idle_in_transaction_session_timeout", "100ms")
    kept = "select from revocation where mark like 'jti:late%'"
    with pytest.raises(DatabaseAway):
        await said_nothing(world)
    assert await world.sql(kept) == []
    async with database.transaction() as tx:
        await revoke(tx, "jti:late", world.clock.now())
    assert len(await world.sql(kept)) == 1


async def test_who_reads_what_a_snapshot_shows_may_take_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pools.OWN_SETTINGS, "idle_in_transaction_session_timeout", "100ms")
    await world.record("5.00")
    await run_job(world, "seal")
    async with Database(world.dsn, 1) as database:
        told = []
        async for each in verify_chain(database, await world.signer(database)):
            with pytest.raises(DatabaseAway):
                await said_nothing(world)  # another one, meanwhile
            told.append(each)
        assert [fault for *_, fault in told] == [None] * len(told)
        assert told


async def test_whoever_follows_hears_also_where_the_connection_that_wakes_has_died(
    world: World, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(world.dsn, tmp_path) as (dsn, line), Database(dsn, 1) as behind:
        monkeypatch.setattr(database, "listener", behind.listener)
        feed = Feed(database)
        running = asyncio.create_task(feed.run())
        member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
        async with aclosing(feed.follow(member, None)) as events:
            await anext(events)
            line.cut()
            await world.record("1.00")
            feed.posted()
            async with asyncio.timeout(20):  # a statement has sixty
                assert (await anext(events))[1] is not None
        running.cancel()
