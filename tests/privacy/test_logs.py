"""What a process says in its log, at its most talkative: nothing of anybody, and no token."""

import json
import subprocess
import sys
from dataclasses import replace

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from gateway.clock import SystemClock
from tests.access.test_refreshing import app_tokens
from tests.house.test_embedded import Gateway
from tests.points import ann_logs_in, speaking_of
from tests.privacy.test_people import ANN, UPDATE
from tests.world import World


async def test_at_debug_the_log_holds_no_token_and_nothing_of_people(real_time: World) -> None:
    world = real_time
    document = UPDATE.replace("updatePerson(", "other_58801: updatePerson(")
    update = (await world.named(await ann_logs_in(world), document))["documentId"]
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
        assert answer.json()["data"]["other_58801"]["errors"] == []
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        async with connect(f"ws://127.0.0.1:{gateway.port}/graphql", subprotocols=["graphql-transport-ws"], additional_headers=headers) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            payload = {"documentId": update, "variables": {"i": ANN}}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            assert "ann.other@example.org" in str(await socket.recv())
        for path in ("graphql", "nowhere"):
            with pytest.raises(WebSocketException):
                await say_nothing_useful(f"ws://127.0.0.1:{gateway.port}/{path}?access_token=SECRET&email=other@")
        await speaking_of(world, "person", "ann.other@example.org")
        failed = await http.post("/graphql", json={"documentId": update, "variables": {"i": ANN}}, headers=headers)
        assert failed.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert gateway.process is not None
    assert gateway.process.stderr is not None
    gateway.process.terminate()
    said = gateway.process.stderr.read().decode()
    gateway.process.wait()
    assert "serving" in said
    assert "InvalidTextRepresentationError (SQLSTATE 22P02), at " in said
    assert '"field": "updatePerson"' in said
    for secret in (tokens["access_token"][-40:], tokens["refresh_token"], "Other", "other@", "58801", "SECRET"):
        assert secret.lower() not in said.lower()


async def say_nothing_useful(url: str) -> None:
    async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
        await socket.send("{}")
        await socket.recv()


FAILURES = """
import asyncio, logging, structlog, threading
import asyncpg
from gateway.logs import configure_logs

configure_logs("debug", %r)
who = "@".join(["ann", "example.org"])  # which no line of the source says
log = structlog.get_logger("gateway.test")

class Falling:
    def __del__(self):
        raise MemoryError(who)

def fall(of):
    raise RuntimeError(of)

async def forgotten():
    raise LookupError(f"{who} was asked for")

async def main():
    asyncio.get_running_loop().call_soon(fall, who)
    task = asyncio.create_task(forgotten())
    await asyncio.sleep(0)
    del task
    asyncio.get_running_loop().call_soon(lambda: {}[who])
    await asyncio.sleep(0)

asyncio.run(main())
Falling()
falling = threading.Thread(target=fall, args=(who,))
falling.start()
falling.join()
for odd in (asyncpg.DataError(), asyncpg.RaiseError(who), asyncpg.UniqueViolationError("twice")):
    log.error("of the database", exc_info=odd)
logging.getLogger("uvicorn.error").error(f"Traceback (most recent call last):\\n  ...\\nLookupError: {who}")
log.error("not to be written", odd=type("Odd", (), {"__repr__": lambda _: fall(who)})())
try:
    try:
        int(who)
    except ValueError as error:
        raise ExceptionGroup(who, [OSError(who), TypeError(who)]) from error
except ExceptionGroup:
    log.exception("one of ours")
    logging.getLogger("library").exception("one of theirs, %s", who)
raise BufferError(who)
"""


def test_a_log_that_nobody_can_write_stops_nothing() -> None:
    code = "from gateway.logs import configure_logs; import os, structlog; configure_logs('info', 'json'); structlog.get_logger('gateway.x').error('x'); print('on', flush=True); os._exit(0)"
    with open("/dev/full", "w") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "on\n")


@pytest.mark.parametrize("format", ["json", "console"])
def test_errors_are_told_by_their_kind_and_place_and_not_in_their_words(format: str) -> None:
    ran = subprocess.run([sys.executable, "-c", FAILURES.replace("%r", repr(format))], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    for told in (
        "LookupError", "KeyError", "ValueError", "ExceptionGroup", "OSError", "TypeError", "MemoryError", "RuntimeError", "BufferError",
        "DataError (SQLSTATE 22000)", "RaiseError (SQLSTATE P0001)", "UniqueViolationError (SQLSTATE 23505): twice",
        "never retrieved", "one of ours", "one of theirs", "of the database", "began or ended", "a line of the log of gateway.test could not be written",
    ):  # fmt: skip
        assert told in ran.stderr, told
    assert "in forgotten" in ran.stderr
    assert "ann@example.org" not in ran.stderr
