"""What is asked whether it lives, and how it is: answered also in a crowd."""

import asyncio

import asyncpg
import pytest

from gateway.database import pools
from gateway.http.documents import document_id
from gateway.settings import read_settings
from tests.world import World

CONNECTIONS = read_settings({}).pool_size


async def test_a_crowd_at_every_connection_makes_no_process_look_dead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "ACQUIRE_SECONDS", 60)
    headers = [{"Authorization": f"Bearer {await world.token(who)}"} for who in ("grocer", "fuel")]
    locking = await asyncpg.connect(world.dsn)
    await locking.execute("begin; lock table trusted_document in access exclusive mode")
    asked = [
        asyncio.create_task(world.http.post("/graphql", json={"documentId": document_id(f"{{ a{n} }}")}, headers=each))
        for n in range(CONNECTIONS) for each in headers
    ]  # fmt: skip
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with asyncio.timeout(30):
        while (await world.sql(waiting))[0][0] < CONNECTIONS:
            await asyncio.sleep(0.02)
    assert "gateway_database_up 1.0" in (await world.http.get("/metrics")).text
    assert [(await world.http.get(f"/{path}")).status_code for path in ("livez", "readyz")] == [200, 200]
    assert not any(each.done() for each in asked)
    await locking.close()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {404}
