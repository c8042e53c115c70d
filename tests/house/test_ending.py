"""A gateway that is told to end: what lasts ends, what is under way has its time, and nobody is told what is not so."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.coalition import catalogue
from gateway.http import patience
from gateway.main import create_app
from gateway.settings import JOBS, read_settings
from tests.conversion.exchanging import CONVERT, QUOTE, Exchanger, exchange, fault, members
from tests.events.test_live import FOLLOW
from tests.lines import line_to
from tests.points import ann_logs_in
from tests.world import RECORD, Place, World, engine, free_door, open_world, started


@pytest.fixture(autouse=True)
def _read_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a partner's system is, each time that it is asked."""
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)


@asynccontextmanager
async def another(
    world: World, jobs: tuple[str, ...] = (), dsn: str | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Any, "asyncio.Task[None]"]]:
    """A gateway beside the world's, on its database: a client of it, its server, and what is done when it has ended."""
    door, port = free_door()
    settings = read_settings({}, data_dir=world.data_dir, port=port, issuer=world.url, jobs=jobs)
    server, task = await started(await create_app(settings, dsn or world.dsn, world.clock, engine()), door)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
        yield http, server, task
    server.should_exit = True
    await task


async def test_streams_of_subscriptions_end_at_once_and_without_being_complete(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    token = await ann_logs_in(world)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with another(world) as (http, server, task):
        async with http.stream("POST", "/graphql", json=await world.named(token, FOLLOW), headers=headers) as answer:
            lines = answer.aiter_lines()
            assert "event: next" in [await anext(lines) for _ in range(4)]
            server.should_exit = True
            rest = [line async for line in lines]
        await asyncio.wait_for(task, patience.SHUTDOWN_SECONDS / 2)
    assert "event: complete" not in rest
    assert not [record for record in caplog.records if record.name == "uvicorn.error" and record.levelname == "ERROR"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_mutation_that_takes_longer_than_there_is_time_ends_with_the_process_and_is_finished_by_another(
    world: World, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    monkeypatch.setattr(patience, "SHUTDOWN_SECONDS", 0.5)
    ann, _ = await members(world)
    quoted = (await world.ask(ann, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]["quote"]
    asked = {**await world.named(ann, CONVERT), "variables": {"input": {"idempotencyKey": "a", "quote": quoted["id"]}}}
    airline = Exchanger("ann")
    async with airline.behind(world, "airline"), another(world) as (http, server, task):
        headers = {"Authorization": f"Bearer {ann}", "Accept": accept}
        asking = asyncio.create_task(http.post("/graphql", json=asked, headers=headers))
        async with asyncio.timeout(30):
            while not airline.asked["ann"]:
                await asyncio.sleep(0.01)
        server.should_exit = True
        await asyncio.wait_for(task, 4)  # the partner is waited for five seconds
        told = (await asyncio.gather(asking, return_exceptions=True))[0]
        airline.go_on.set()
    if accept != "application/json":
        assert isinstance(told, httpx.RemoteProtocolError)  # it breaks off, and is not complete
    else:
        assert isinstance(told, httpx.Response)
        assert (told.status_code, told.json()["errors"][0]["extensions"]["code"]) == (503, "ENDING")
    assert (await world.wallet())["held"] == 200
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    await world.sql(f"update partner set endpoint = '{world.airline_url}' where code = 'airline'")
    assert (await world.ask(ann, CONVERT, input=asked["variables"]["input"]))["convertPoints"]["conversion"]["state"] == "COMPLETED"
    assert await world.broken() == []


async def test_who_is_still_asking_for_a_token_when_the_gateway_ends_is_told_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SHUTDOWN_SECONDS", 0.5)
    async with another(world) as (http, server, task):
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 29\r\n\r\ngrant_type=")
        await writer.drain()
        assert (await http.get("/livez")).status_code == 200  # by then the other one is being read
        server.should_exit = True
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        await task
        writer.close()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in head.lower()
    assert json.loads(body)["error"] == "temporarily_unavailable"


async def test_what_was_left_under_way_is_begun_by_no_process_that_ends(place: Place) -> None:
    async with open_world(place, jobs=()) as world:  # the one that ends is the only one that runs the job
        ann, _ = await members(world)
        for n in range(3):
            await fault(world, "lose_answer")
            await exchange(world, ann, f"a{n}")
        world.clock.set(world.clock.now() + timedelta(minutes=1))
        airline = Exchanger("ann")
        async with airline.behind(world, "airline"), another(world, jobs=("conversions",)) as (_, server, task):
            async with asyncio.timeout(30):
                while not airline.asked["ann"]:
                    await asyncio.sleep(0.02)
            server.should_exit = True
            async with asyncio.timeout(30):
                while not server.config.app.jobs._is_ending:
                    await asyncio.sleep(0.01)
            airline.go_on.set()
            await task
        assert airline.asked["ann"] == 1
        assert sorted(row[0] for row in await world.sql("select state from conversion")) == ["completed", "held", "held"]
        assert await world.broken() == []


async def test_a_process_ends_while_the_database_answers_nobody(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches, its jobs and their scheduler would wait for as long as a statement may take, a minute, or without end."""
    monkeypatch.setattr(patience, "SHUTDOWN_SECONDS", 1)
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    async with line_to(world.dsn, tmp_path) as (dsn, line), another(world, JOBS, dsn) as (http, server, task):
        asked = [{"query": RECORD, "variables": {"input": world.purchase("1.00")}} for _ in range(3)]
        assert (await http.post("/graphql", json=asked[0], headers=headers)).status_code == 200
        line.stall()
        waiting = [asyncio.create_task(http.post("/graphql", json=each, headers=headers)) for each in asked[1:]]
        async with asyncio.timeout(10):
            while line.held < 5:  # a batch, what is followed each second, and jobs
                await asyncio.sleep(0.02)
        server.should_exit = True
        await asyncio.wait_for(asyncio.shield(task), 12)
        answered = await asyncio.gather(*waiting, return_exceptions=True)
        assert {each.status_code for each in answered if isinstance(each, httpx.Response)} <= {503}
    assert await world.transactions() == 1


async def test_who_is_broken_off_and_notices_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As who waits until a database that hangs has taken back what was asked."""
    monkeypatch.setattr(patience, "BROKEN_OFF_SECONDS", 0.1)
    answers, begun, ended = asyncio.Event(), asyncio.Event(), []

    async def takes_back() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await answers.wait()
            ended.append("late")

    async def fails() -> None:
        raise ValueError("nobody's")

    late, failed = asyncio.create_task(takes_back()), asyncio.create_task(fails())
    await begun.wait()
    async with asyncio.timeout(2):
        await patience.break_off([late, failed])
    assert (late.done(), failed.done(), ended) == (False, True, [])
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert ended == ["late"]
