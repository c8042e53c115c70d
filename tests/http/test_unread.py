"""What is sent has a size, and counts for whoever asked for it until it is read."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from gateway.access.caller import Caller
from gateway.http import endpoint, shares
from gateway.http.refusing import RequestRefused
from tests.access.consenting import agree, exchange
from tests.events.following import next_of, open_socket
from tests.http.slow_reader import slow_reader
from tests.points import ann_hands_over
from tests.world import RECORD, World

PAGES = "query($r: [MemberRef!]!) { membershipsByRef(refs: $r) { %s } }"


async def test_an_answer_has_a_size_and_so_has_what_one_caller_leaves_unread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_MAX_BYTES", 2_000_000)
    monkeypatch.setattr(shares, "UNREAD_MAX_BYTES", 3_000_000)
    query = "query($r: [_Any!]!) { _entities(representations: $r) { ... on Programme { %s } } }"
    fields = " ".join(f"{'a' * 60}{n:03}: code" for n in range(30))

    mer = (await world.ask("grocer", "{ programmes { id } }"))["programmes"][0]["id"]

    def asked(items: int) -> dict[str, Any]:
        return {"query": query % fields, "variables": {"r": [{"__typename": "Programme", "id": mer}] * items}}

    large = await world.post("grocer", query % fields, **asked(1_000)["variables"])
    assert (large.status_code, large.json()["errors"][0]["extensions"]["code"]) == (400, "ANSWER_TOO_LARGE")
    # An answer in parts is whole.
    fits = await world.post("grocer", query % fields, **asked(800)["variables"])
    assert len(fits.json()["data"]["_entities"]) == 800
    assert len(fits.content) == int(fits.headers["content-length"]) > 1_500_000
    # While one is not read there is no room for another one, and nothing is done whose answer could not be told.
    unread = await slow_reader(world.url)
    body = json.dumps(asked(800)).encode()
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {await world.token('grocer')}\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    await asyncio.get_running_loop().sock_sendall(unread, whole * 5)  # the kernel keeps a few of the answers
    answer = fits
    async with asyncio.timeout(5):
        while answer.status_code != 429:
            answer = await world.post("grocer", query % fields, **asked(800)["variables"])
    assert answer.json()["errors"][0]["extensions"]["code"] == "BUSY"
    room = endpoint.Unread.check
    monkeypatch.setattr(endpoint.Unread, "check", lambda self, who, size, most: room(self, who, size + 1_600_000, most))
    refused = await world.post("grocer", RECORD, i=world.purchase("1.00"))
    assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (429, "BUSY")
    assert await world.transactions() == 0
    monkeypatch.setattr(endpoint.Unread, "check", room)
    assert (await world.post("fuel", query % fields, **asked(800)["variables"])).status_code == 200
    unread.close()
    async with asyncio.timeout(5):
        while answer.status_code != 200:
            answer = await world.post("grocer", query % fields, **asked(800)["variables"])


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_what_a_mutation_did_is_told_however_long_that_is(world: World, monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    for name in ("ANSWER_MAX_BYTES", "STREAMED_MAX_BYTES"):
        monkeypatch.setattr(endpoint, name, 5_000)
    monkeypatch.setattr(endpoint, "COUNTED_BYTES", 2_000)
    fields = " ".join(f"{'a' * 60}{n:02}: __typename" for n in range(8))
    mutation = f"mutation($i: [PurchaseInput!]!) {{ recordPurchases(input: $i) {{ {fields} earning {{ points }} errors {{ code }} }} }}"
    headers = {"Authorization": f"Bearer {await world.token('grocer')}", "Accept": accept}
    asked = {"query": mutation, "variables": {"i": [world.purchase("1.00") for _ in range(20)]}}
    answer = await world.http.post("/graphql", json=asked, headers=headers)
    assert answer.text.count('"points":1') == 20
    assert await world.transactions() == 20
    large = {"query": PAGES % fields, "variables": {"r": [{"externalId": "ann"}] * 20}}
    assert "ANSWER_TOO_LARGE" in (await world.http.post("/graphql", json=large, headers=headers)).text


async def test_an_event_has_a_size_and_a_turn_like_a_query(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await agree(world, "balance:read", "profile:read")
    acting = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))).json()["access_token"]
    asked = []
    turns = shares.Turns.of
    monkeypatch.setattr(shares.Turns, "of", lambda self, *given: asked.append(Counting(turns(self, *given))) or asked[-1])
    follow = "subscription { walletChanged { cursor wallets { programme { %s } } } }"
    text = follow % " ".join(f"{'a' * 60}{n:02}: name" for n in range(20))
    async with open_socket(world, acting) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": text}}))
        begin = (await next_of(socket))["payload"]
        assert begin["data"]["walletChanged"]["cursor"]
        assert asked[-1].times == 1
        monkeypatch.setattr(endpoint, "STREAMED_MAX_BYTES", 1_000)
        await world.record("1.00")
        said = await next_of(socket)
        assert said["payload"]["errors"][0]["extensions"]["code"] == "ANSWER_TOO_LARGE"
        assert said["payload"]["data"] is None
        assert max(turn.times for turn in asked) == 2


class Counting:
    """A turn that knows how often it was taken."""

    def __init__(self, turn: asyncio.Semaphore) -> None:
        self._turn, self.times = turn, 0

    async def __aenter__(self) -> None:
        self.times += 1
        await self._turn.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._turn.release()


async def test_a_streamed_answer_counts_until_it_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "UNREAD_MAX_BYTES", 1_500_000)
    query = "query($r: [_Any!]!) { _entities(representations: $r) { ... on Programme { %s } } }"
    fields = " ".join(f"{'a' * 60}{n:03}: code" for n in range(30))
    mer = (await world.ask("grocer", "{ programmes { id } }"))["programmes"][0]["id"]
    asked = {"query": query % fields, "variables": {"r": [{"__typename": "Programme", "id": mer}] * 400}}
    headers = {"Authorization": f"Bearer {await world.token('grocer')}", "Accept": "text/event-stream"}
    unread = await slow_reader(world.url)
    body = json.dumps(asked).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(body)}.items())
    whole = f"POST /graphql HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body
    await asyncio.get_running_loop().sock_sendall(unread, whole * 12)  # the kernel keeps a few of the answers
    async with asyncio.timeout(20):
        while "BUSY" not in (await world.http.post("/graphql", json=asked, headers=headers)).text:
            await asyncio.sleep(0.05)
        unread.close()
        while "BUSY" in (await world.http.post("/graphql", json=asked, headers=headers)).text:
            await asyncio.sleep(0.05)


async def test_what_a_partner_leaves_unread_is_its_own_whomever_it_acts_for(world: World) -> None:
    fuel, unread = uuid4(), shares.Unread()
    acting = [Caller("member", uuid4(), "partner-fuel", frozenset(), acting_partner_id=fuel) for _ in range(2)]
    with unread.counting(acting[0], shares.UNREAD_MAX_BYTES):
        for caller in (acting[1], Caller("partner", fuel, "partner-fuel", frozenset())):
            with pytest.raises(RequestRefused):
                unread.check(caller, 1, shares.UNREAD_MAX_BYTES)
        unread.check(Caller("member", acting[0].subject_id, "member-app", frozenset()), 1, shares.UNREAD_MAX_BYTES)


async def test_answers_of_middle_size_count_until_they_are_read_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what the kernel takes in, which is little."""
    monkeypatch.setattr(shares, "UNREAD_MAX_BYTES", 500_000)
    query = PAGES % " ".join(f"{'a' * 60}{n:02}: __typename" for n in range(30))
    refs = [{"externalId": "ann"}] * 100
    size = len((await world.post("grocer", query, r=refs)).content)
    assert 200_000 < size < 250_000
    body = json.dumps({"query": query, "variables": {"r": refs}})
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {await world.token('grocer')}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    unread = []
    for _ in range(2):
        unread.append(await slow_reader(world.url))
        await asyncio.get_running_loop().sock_sendall(unread[-1], request * 3)
    async with asyncio.timeout(5):
        while (await world.post("grocer", query, r=refs)).status_code != 429:
            await asyncio.sleep(0.05)
    assert (await world.post("fuel", query, r=refs)).status_code == 200
    for each in unread:
        each.close()
    async with asyncio.timeout(5):
        while (await world.post("grocer", query, r=refs)).status_code != 200:
            await asyncio.sleep(0.05)


async def test_a_refusal_says_back_little_of_what_was_sent_and_a_long_one_counts_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    asked = {"query": "{ partner { code } }", "operationName": "\u00ad" * 1_000_000}
    told = await world.http.post("/graphql", json=asked, headers=headers)
    assert "There is no operation" in told.text
    assert len(told.content) < 1_000
    counted: list[int] = []
    counting = endpoint.Unread.counting
    monkeypatch.setattr(endpoint.Unread, "counting", lambda self, who, size: counted.append(size) or counting(self, who, size))
    wrong = " ".join(f"wrong{'x' * 12_000}{n}" for n in range(5))
    monkeypatch.setattr(endpoint, "COUNTED_BYTES", 2_000)
    refused = await world.http.post("/graphql", json={"query": f"{{ {wrong} }}"}, headers=headers)
    assert len(refused.json()["errors"]) >= 5
    assert len(refused.content) < 5_000
    assert counted == [len(refused.content)]
