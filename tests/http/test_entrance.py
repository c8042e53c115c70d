"""The entrance: so many of one party's requests are read and checked at once, and everybody else's meanwhile."""

import asyncio
import json
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from gateway.access.caller import Caller
from gateway.http import shares
from gateway.http.admission import Admission
from tests.events.following import next_of, open_socket
from tests.world import World


async def test_so_many_of_one_partys_requests_are_checked_at_once_and_everybody_elses_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever door they come: the socket's are of the same party."""
    go_on, checked, most = asyncio.Event(), Counter[str](), Counter[str]()
    admit = Admission._admit

    async def slowly(self: Admission, caller: Caller, *given: Any) -> Any:
        checked[caller.client_id] += 1
        most[caller.client_id] = max(most[caller.client_id], checked[caller.client_id])
        try:
            if caller.client_id == "partner-grocer":
                await go_on.wait()
            return await admit(self, caller, *given)
        finally:
            checked[caller.client_id] -= 1

    monkeypatch.setattr(Admission, "_admit", slowly)
    token = await world.token("grocer")
    async with open_socket(world, token) as socket:
        for n in range(5):
            await socket.send(json.dumps({"type": "subscribe", "id": str(n), "payload": {"query": "{ partner { code } }"}}))
        crowd = [asyncio.create_task(world.post(token, "{ partner { code } }")) for _ in range(20)]
        async with asyncio.timeout(10):
            while checked["partner-grocer"] < shares.ADMITTED_AT_ONCE:
                await asyncio.sleep(0.01)
        assert (await world.post("fuel", "{ partner { code } }")).status_code == 200
        assert not any(each.done() for each in crowd)
        go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*crowd)} == {200}
        assert [(await next_of(socket))["type"] for _ in range(5)].count("next") >= 2
    assert most["partner-grocer"] == shares.ADMITTED_AT_ONCE


async def test_who_gets_no_turn_at_the_entrance_in_time_is_told_so_and_none_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the database hangs: whoever is in waits for it, and everybody else of that party waits no longer than that."""
    monkeypatch.setattr(shares, "ENTRANCE_SECONDS", 0.3)
    go_on, inside, admit = asyncio.Event(), Counter[str](), Admission._admit

    async def stuck(self: Admission, caller: Caller, *given: Any) -> Any:
        inside[caller.client_id] += 1
        if caller.client_id == "partner-grocer":
            await go_on.wait()
        return await admit(self, caller, *given)

    monkeypatch.setattr(Admission, "_admit", stuck)
    token = await world.token("grocer")
    crowd = [asyncio.create_task(world.post(token, "{ partner { code } }")) for _ in range(shares.ADMITTED_AT_ONCE + 20)]
    gone = [asyncio.create_task(world.post(token, "{ partner { code } }")) for _ in range(5)]
    async with asyncio.timeout(10):
        while sum(each.done() for each in crowd + gone) < 25:
            await asyncio.sleep(0.02)
    assert inside["partner-grocer"] == shares.ADMITTED_AT_ONCE
    waited = [each.result() for each in crowd + gone if each.done()]
    assert {(answer.status_code, answer.json()["errors"][0]["extensions"]["code"], answer.headers["retry-after"]) for answer in waited} == {
        (429, "BUSY", "1")
    }
    assert (await world.post("fuel", "{ partner { code } }")).status_code == 200
    for each in crowd + gone:  # clients that go away give their turns back, too
        each.cancel()
    await asyncio.gather(*crowd, *gone, return_exceptions=True)
    go_on.set()
    again = await asyncio.gather(*(world.post(token, "{ partner { code } }") for _ in range(20)))
    assert {answer.status_code for answer in again} == {200}


async def test_who_leaves_the_entrance_lets_everybody_else_have_a_turn_before_the_next_of_its_party(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "ADMITTED_AT_ONCE", 1)
    turns, seen = shares.Turns(), list[str]()
    one, other = [Caller("partner", uuid4(), f"partner-{n}", frozenset()) for n in "xy"]

    async def enter(caller: Caller) -> None:
        async with turns.at_the_entrance(caller):
            seen.append(caller.client_id)

    async with asyncio.TaskGroup() as all_at_once:
        for caller in (one, one, one, other):
            all_at_once.create_task(enter(caller))
    assert seen == ["partner-x", "partner-y", "partner-x", "partner-x"]
