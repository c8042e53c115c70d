"""What a process says in its log, at its most talkative: nothing of anybody, and no token."""

import json
from dataclasses import replace

import httpx
from websockets.asyncio.client import connect

from gateway.clock import SystemClock
from tests.access.test_refreshing import app_tokens
from tests.house.test_embedded import Gateway
from tests.points import ann_logs_in
from tests.privacy.test_people import ANN, UPDATE
from tests.world import World


async def test_at_debug_the_log_holds_no_token_and_nothing_of_people(real_time: World) -> None:
    world = real_time
    update = (await world.named(await ann_logs_in(world), UPDATE))["documentId"]
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn, "GATEWAY_LOG_LEVEL": "debug", "GATEWAY_JOBS": "", "GATEWAY_LANES": "1"}
    gateway.start()
    url = f"http://127.0.0.1:{gateway.port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        there = replace(world, url=url, http=http, clock=SystemClock())  # type: ignore[arg-type]
        tokens = await app_tokens(there)
        answer = await http.post(
            "/graphql",
            json={"documentId": update, "variables": {"i": ANN}},
            headers={"Authorization": f"Bearer {tokens['access_token']}"},
        )
        assert answer.json()["data"]["updatePerson"]["errors"] == []
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        async with connect(f"ws://127.0.0.1:{gateway.port}/graphql", subprotocols=["graphql-transport-ws"], additional_headers=headers) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            payload = {"documentId": update, "variables": {"i": ANN}}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            assert "ann.other@example.org" in str(await socket.recv())
    assert gateway.process is not None
    assert gateway.process.stderr is not None
    gateway.process.terminate()
    said = gateway.process.stderr.read().decode()
    gateway.process.wait()
    assert "serving" in said.lower() or "started" in said.lower()
    for secret in (tokens["access_token"][-40:], tokens["refresh_token"], "Other", "other@", "58801"):
        assert secret.lower() not in said.lower()
