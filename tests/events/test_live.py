"""walletChanged, followed by clients that others wrote: npm's graphql-ws and graphql-sse."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.access.test_clients import clients
from tests.events.following import FOLLOW, closed_with, following, next_of, open_socket, subscribe
from tests.points import ann_logs_in
from tests.world import World

__all__ = ["clients"]


@pytest.mark.parametrize("which", ["ws", "sse"])
async def test_npms_clients_follow_a_wallet_as_it_changes(world: World, clients: Path, which: str) -> None:
    token = await ann_logs_in(world)
    async with following(world, token, which) as follower:
        begin = await follower.event()
        assert (begin["kind"], begin["activity"]) == (None, None)
        await world.record("12.00")
        seen = await follower.event()
        assert (seen["kind"], seen["activity"]["points"], seen["wallets"][0]["available"]) == ("earning", 12, 12)
        await world.redeem(5)
        seen = await follower.event()
        assert (seen["kind"], seen["activity"]["points"], seen["wallets"][0]["available"]) == ("redemption", -5, 7)


@pytest.mark.parametrize("which", ["ws", "sse"])
async def test_npms_clients_come_back_by_themselves_and_miss_nothing(world: World, clients: Path, which: str) -> None:
    token = await ann_logs_in(world)
    async with following(world, token, which) as follower:
        await follower.event()
        await world.record("1.00")
        assert (await follower.event())["activity"]["points"] == 1
        for first in (2, 4):  # twice: what came after the first reconnect is not told again after the second
            await follower.say("drop")
            while "dropped" not in await follower.line():
                pass
            await world.record(f"{first}.00")
            await world.record(f"{first + 1}.00")
            await follower.say("back")
            assert [(await follower.event())["activity"]["points"] for _ in range(2)] == [first, first + 1]
        await world.record("9.00")
        last = await follower.event()
        assert last["activity"]["points"] == 9
    await world.record("7.00")
    async with following(world, token, which, last["cursor"]) as follower:  # an app that was closed and is opened again
        assert (await follower.event())["activity"]["points"] == 7


async def test_nobody_sees_another_members_events_and_a_partner_none(world: World) -> None:
    await world.ask("grocer", "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { errors { code } } }", i={"externalId": "bob"})
    async with open_socket(world, await ann_logs_in(world)) as socket:
        await subscribe(socket)
        begin = (await next_of(socket))["payload"]
        assert begin["data"]["walletChanged"]["kind"] is None
        assert begin["extensions"]["cost"]["requestedQueryCost"] > 0
        await world.record("9.00", member={"externalId": "bob"})
        await world.record("5.00")
        seen = (await next_of(socket))["payload"]
        assert seen["data"]["walletChanged"]["activity"]["points"] == 5
        assert seen["extensions"]["cost"]["actualQueryCost"] == begin["extensions"]["cost"]["actualQueryCost"]
    async with open_socket(world, await world.token("grocer")) as socket:
        await subscribe(socket)
        assert (await next_of(socket))["type"] == "error"


async def test_a_subscription_ends_with_its_token(world: World) -> None:
    token = await ann_logs_in(world)
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        await next_of(socket)
        world.clock.set(world.clock.now() + timedelta(minutes=6))
        assert await closed_with(socket) == 4403


async def test_an_event_stream_ends_with_its_token_and_says_so(world: World) -> None:
    token = await ann_logs_in(world)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with world.http.stream("POST", "/graphql", json=await world.named(token, FOLLOW), headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        said = [await anext(lines) for _ in range(4)]
        assert said[2] == "event: next"
        world.clock.set(world.clock.now() + timedelta(minutes=6))
        async with asyncio.timeout(10):
            rest = [line async for line in lines]
    assert "UNAUTHENTICATED" in " ".join(rest)
    assert "event: complete" in rest


async def test_what_cannot_begin_is_refused_before_a_stream_opens(world: World) -> None:
    events = {"Accept": "text/event-stream"}
    answer = await world.http.post("/graphql", json={"query": FOLLOW}, headers=events)
    assert answer.status_code == 401
    partner = {**events, "Authorization": f"Bearer {await world.token('grocer')}"}
    assert (await world.http.post("/graphql", json={"query": FOLLOW}, headers=partner)).status_code == 403
    assert (await world.http.post("/graphql", json={"query": "subscription { nothing }"}, headers=partner)).status_code == 400
    plain = await world.post("grocer", "subscription { walletChanged { cursor } }")
    assert "text/event-stream" in plain.json()["errors"][0]["message"]


async def test_every_event_is_paid_for_and_who_has_spent_all_comes_back_for_the_rest(world: World) -> None:
    token = await ann_logs_in(world)
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        cursor = (await next_of(socket))["payload"]["data"]["walletChanged"]["cursor"]
        await world.record("1.00")
        cursor = (await next_of(socket))["payload"]["data"]["walletChanged"]["cursor"]
        # Nothing is left, and nothing comes back.
        await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds'")
        seen = [1]
        while True:
            await world.record(f"{len(seen) + 1}.00")
            said = await next_of(socket)
            if said["type"] == "error" or said["payload"]["data"] is None:
                break
            cursor = said["payload"]["data"]["walletChanged"]["cursor"]
            seen.append(said["payload"]["data"]["walletChanged"]["activity"]["points"])
            assert len(seen) < 1_000
        error = said["payload"][0] if said["type"] == "error" else said["payload"]["errors"][0]
        assert error["extensions"]["code"] == "THROTTLED"
    await world.sql("update budget set available = 50000")
    async with open_socket(world, token) as socket:
        await subscribe(socket, after=cursor)
        assert (await next_of(socket))["payload"]["data"]["walletChanged"]["activity"]["points"] == len(seen) + 1


async def test_a_cursor_that_is_none_is_told(world: World) -> None:
    token = await ann_logs_in(world)
    for bad in ("nonsense", "999999999999-00000000-0000-0000-0000-000000000000-0"):
        async with open_socket(world, token) as socket:
            await subscribe(socket, after=bad)
            said = await next_of(socket)
            assert said["type"] == "error"
            assert said["payload"][0]["extensions"]["code"] == "BAD_INPUT"


async def test_a_queue_that_is_not_read_is_cut_off_with_a_cursor_and_nothing_is_lost(world: World) -> None:
    """A batch of more events than are kept unread arrives at once; who is cut off comes back for the rest."""
    token = await ann_logs_in(world)
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code } } }"
    points: list[int] = []
    async with open_socket(world, token) as socket:
        await subscribe(socket)
        cursor = (await next_of(socket))["payload"]["data"]["walletChanged"]["cursor"]
        await world.ask("grocer", many, i=[world.purchase(f"{n}.00") for n in range(1, 401)])
        while (said := await next_of(socket))["type"] == "next" and said["payload"]["data"]:
            changed = said["payload"]["data"]["walletChanged"]
            points.append(changed["activity"]["points"])
            cursor = changed["cursor"]
    assert cursor in json.dumps(said)
    assert len(points) == 256
    async with open_socket(world, token) as socket:
        await subscribe(socket, after=cursor)
        while len(points) < 400:
            points.append((await next_of(socket))["payload"]["data"]["walletChanged"]["activity"]["points"])
    assert points == list(range(1, 401))
