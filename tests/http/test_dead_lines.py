"""Connections to the database that have died without a word, as where its address moved to another machine."""

import asyncio
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx

from gateway import main
from gateway.database import Database
from gateway.settings import read_settings
from tests.lines import Line, line_to
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
