"""Balances in partners' own systems: asked for once, priced, and holding nobody up."""

import asyncio
import json
import time
from typing import Any

import pytest

from partners.protocols import rest_json
from tests.conversion.exchanging import fault
from tests.events.following import open_socket
from tests.http.test_shares import PAGES
from tests.points import bob_joins
from tests.world import World, engine


@pytest.mark.parametrize("airline", ["answers", "drips", "is away"])
async def test_balances_in_a_partners_own_system_are_asked_for_once_and_hold_nobody_up(
    world: World, monkeypatch: pytest.MonkeyPatch, airline: str
) -> None:
    asked: list[str] = []
    ask = rest_json.RestJson.balance

    async def counted(self: Any, account: str) -> int:
        asked.append(account)
        return await ask(self, account)

    monkeypatch.setattr(rest_json.RestJson, "balance", counted)
    if airline == "drips":
        monkeypatch.setattr(rest_json, "TIMEOUT_SECONDS", 0.5)
    for n in range(30):
        link = "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }"
        assert (await world.ask("airline", link, i={"externalId": f"flyer-{n}"}))["enrolMember"]["errors"] == []
    if airline == "drips":
        await fault(world, "drip", 1_000)
    elif airline == "is away":
        await world.stop_airline()
    refs = [{"externalId": f"flyer-{n % 30}"} for n in range(900)]
    query = PAGES % "id nativeBalance { availability }"
    crowded = asyncio.gather(*(world.post("airline", query, r=refs) for _ in range(4)))
    longest = 0.0
    while not crowded.done():
        began = time.monotonic()
        assert (await world.post("grocer", "{ programmes { code } }")).status_code == 200
        longest = max(longest, time.monotonic() - began)
        await asyncio.sleep(0.01)
    for answer in await crowded:
        said = {each["nativeBalance"]["availability"] for each in answer.json()["data"]["membershipsByRef"]}
        assert said == ({"AVAILABLE"} if airline == "answers" else {"UNAVAILABLE"})
    assert longest < 2
    assert len(asked) <= 4 * 30
    if airline != "answers":
        assert len(asked) <= 4 * 4  # those that were under way when the first one got no answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The accounts of which the airline was asked, which takes its time and has seven miles for each."""
    accounts: list[str] = []

    async def slow(self: Any, account: str) -> int:
        accounts.append(account)
        await asyncio.sleep(0.2)
        return 7

    monkeypatch.setattr(rest_json.RestJson, "balance", slow)
    return accounts


async def test_nobody_is_asked_for_balances_that_nobody_waits_for(world: World, asked: list[str]) -> None:
    refs = [{"externalId": f"flyer-{n}"} for n in range(60)]
    many = "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }"
    await world.ask("airline", many, i=refs)
    query = {"query": PAGES % "nativeBalance { availability }", "variables": {"r": refs}}
    async with open_socket(world, await world.token("airline")) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": query}))
        while not asked:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    assert 0 < len(asked) <= 8


async def test_what_waits_for_partners_own_systems_takes_no_turn_from_what_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = asyncio.Event(), asyncio.Event()

    async def silent(self: Any, account: str) -> int:
        asked.set()
        await answers.wait()
        return 7

    monkeypatch.setattr(rest_json.RestJson, "balance", silent)
    refs = [{"externalId": "ann"}] * 60
    waiting = [asyncio.create_task(world.post("airline", PAGES % "nativeBalance { points }", r=refs)) for _ in range(9)]
    await asked.wait()
    for _ in range(3):
        assert (await world.post("airline", PAGES % "externalId", r=refs)).status_code == 200
    assert not any(each.done() for each in waiting)
    answers.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_a_balance_that_was_given_up_is_asked_for_anew(world: World, asked: list[str]) -> None:
    """A sibling that fails takes its neighbours away; what comes after them in the same request is told all the same."""
    query = """mutation($i: EnrolMemberInput!) {
      a: enrolMember(input: $i) { membership { nativeBalance { points } activity(first: 1, after: "bad") { pageInfo { endCursor } } } }
      b: enrolMember(input: $i) { membership { nativeBalance { points } } } }"""
    answer = await world.post("airline", query, i={"externalId": "flyer"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["data"]["b"]["membership"]["nativeBalance"]["points"] == 7
    assert [error["extensions"]["code"] for error in body["errors"]] == ["BAD_INPUT"]
    assert asked == ["flyer", "flyer"]


async def test_points_are_exchanged_however_many_look_at_their_balances(world: World) -> None:
    await world.record("900.00")
    await fault(world, "drip", 1_000)
    await bob_joins(world)
    connector = rest_json.RestJson(world.airline_url)
    looking = [asyncio.create_task(connector.balance(f"flyer-{n}")) for n in range(60)]
    await asyncio.sleep(0.1)
    await fault(world, "drip", 0)
    assert (await asyncio.wait_for(connector.credit("ann", 5, "r-1"), 1.5)).balance == 5
    for each in looking:
        each.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    await connector.close()


def test_only_an_operation_that_asks_partners_waits_with_those_that_do() -> None:
    document = """query A { me { id } } query B { me { memberships { ...F } } } query C { me { memberships { id } } }
      fragment F on Membership { ... on Membership { nativeBalance { points } } }"""
    assert engine().prepare(document).asks_partners == {"A": False, "B": True, "C": False}
