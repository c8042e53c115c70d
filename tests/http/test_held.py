"""What is asked counts in memory, for its party, from the first byte until it is answered."""

import asyncio
import contextlib
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.http import endpoint, shares
from gateway.http.budget import Budgets
from gateway.http.wire import weight_of
from tests.access.consenting import agree, exchange
from tests.events.following import next_of, open_socket
from tests.house.test_server import BUY
from tests.ledger.test_batches import locked_wallet, waits
from tests.points import ann_hands_over, ann_logs_in
from tests.world import RECORD, World

PARTNER = "{ partner { code } }"
CODES = "query($c: [String!]) { partner { code } }"


@contextlib.asynccontextmanager
async def unfinished(world: World, token: str, sent: int, announced: int | None = None) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body never ends: of an announced length, or in chunks."""
    address = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    length = "Transfer-Encoding: chunked" if announced is None else f"Content-Length: {announced}"
    writer.write(f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode())
    body = b" " * sent
    writer.write(body if announced is not None else b"%x\r\n%s\r\n" % (sent, body))
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()


@pytest.fixture
def charged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What everybody has paid, charge by charge."""
    charges: list[int] = []
    charge = Budgets.charge

    async def noted(self: Budgets, caller: Any, points: int) -> Any:
        charges.append(points)
        return await charge(self, caller, points)

    monkeypatch.setattr(Budgets, "charge", noted)
    return charges


@pytest.mark.parametrize("announced", [3_000_000, None])
async def test_bodies_that_never_end_hold_so_much_for_a_party_and_are_paid_for_where_they_are_announced(
    world: World, monkeypatch: pytest.MonkeyPatch, charged: list[int], announced: int | None
) -> None:
    monkeypatch.setattr(shares, "HELD_MAX_WEIGHT", 1_000_000)
    token = await world.token("grocer")
    async with unfinished(world, token, 450_000, announced), unfinished(world, token, 450_000, announced):
        await asyncio.sleep(0.2)
        async with unfinished(world, token, 450_000, announced) as reader:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 429")
        assert (await world.post(token, PARTNER)).status_code == 200  # what is small counts for nothing
        assert (await world.post("fuel", CODES, c=["x" * 450_000])).status_code == 200  # and one party's for nobody else
        assert charged.count(30_000) == (3 if announced is not None else 0)
    async with asyncio.timeout(5):
        while (await world.post(token, CODES, c=["x" * 900_000])).status_code != 200:
            await asyncio.sleep(0.05)


async def test_a_request_counts_until_it_is_answered_also_over_a_socket(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "HELD_MAX_WEIGHT", 150_000)
    await world.record("50.00")
    token = await world.token("grocer")
    wide = {"i": {**world.purchase("1.00"), "lines": [{"sku": "s", "amount": "0.01", "quantity": "1"}] * 200}}
    many = "mutation($i: PurchaseInput!) { recordPurchase(input: $i) { earning { points } errors { code } } }"
    async with open_socket(world, token) as socket, locked_wallet(world):
        posted = asyncio.create_task(world.post(token, many, **wide))
        await waits(world, 1)
        assert (await world.post(token, CODES, c=["x" * 20] * 600)).json()["errors"][0]["extensions"]["code"] == "BUSY"
        payload = {"query": CODES, "variables": {"c": ["x" * 20] * 600}}
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        said = await next_of(socket)
        assert said["payload"][0]["extensions"]["code"] == "BUSY"
    assert (await posted).status_code == 200
    assert (await world.post(token, CODES, c=["x" * 20] * 600)).status_code == 200


async def test_a_body_that_would_grow_too_large_in_memory_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "REQUEST_MAX_WEIGHT", 500_000)
    many = json.dumps({"query": PARTNER, "variables": {"x": {f"{n}": 1 for n in range(3_000)}}})
    read: list[Any] = []
    monkeypatch.setattr(endpoint, "read_request", lambda *given: read.append(given))
    headers = {"Authorization": f"Bearer {await world.token('grocer')}", "Content-Type": "application/json"}
    answer = await world.http.post("/graphql", content=many, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (413, "BODY_TOO_LARGE")
    assert read == []


async def test_a_members_own_app_sends_little_and_who_acts_for_the_member_what_partners_send(world: World) -> None:
    await agree(world, "balance:read")
    own = await ann_logs_in(world)
    acting = (await exchange(world, await ann_hands_over(world, "balance:read"))).json()["access_token"]
    long = json.dumps({"query": "{ __typename }", "extensions": {"x": "x" * 70_000}})
    told = {}
    for who, token in (("own", own), ("acting", acting)):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        told[who] = (await world.http.post("/graphql", content=long, headers=headers)).status_code
    assert told == {"own": 413, "acting": 200}


@pytest.mark.parametrize("length", ["99999999999999999", "4194305"])
async def test_a_body_that_is_announced_as_too_large_is_refused_and_costs_nothing(
    world: World, charged: list[int], length: str
) -> None:
    token = await world.token("grocer")
    async with unfinished(world, token, 10, int(length)) as reader:
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413")
    assert charged == []


@pytest.mark.parametrize(
    "text",
    [
        b"{%s}" % b",".join(b'"%d":1' % n for n in range(50_000)),
        b"[%s]" % b",".join(b'"%d"' % n for n in range(50_000)),
        b"[%s]" % b",".join(b"%d" % n for n in range(1_000, 51_000)),
        b"[%s]" % b",".join(b"%d.5" % n for n in range(50_000)),
        b"[%s]" % b",".join([b"[]"] * 50_000),
        b"[%s]" % b",".join([b"{}"] * 50_000),
        b"[%s]" % b",".join(b'{"a":%d.5}' % n for n in range(30_000)),
        b"[%s]" % b",".join(b"[%d]" % n for n in range(1_000, 31_000)),
        b'"%s"' % (b"\\u20ac" * 100_000),
        b'"%s\xf0\x9f\x98\x80"' % (b"a" * 400_000),
        b'"%s\\ud83d\\ude00"' % (b"a" * 400_000),
        b"[%s]" % b",".join([b"[" * 500 + b"]" * 500] * 50),
        b"[%s]" % b",".join([b'{"a":' * 500 + b"1" + b"}" * 500] * 50),
    ],
    ids=["names", "texts", "integers", "decimals", "lists", "objects", "objects of one", "lists of one", "escapes", "a wide letter",
         "an escaped wide letter", "nested lists", "nested objects"],
)
def test_the_weight_of_a_body_is_about_what_it_takes(text: bytes) -> None:
    tracemalloc.start()
    try:
        read = orjson.loads(text)
        taken = tracemalloc.get_traced_memory()[0] + len(text)
    finally:
        tracemalloc.stop()
    assert read
    assert taken < 2 * weight_of(text)
    assert weight_of(text) < 4 * taken


@pytest.mark.parametrize("variables", [{"x": json.loads("[" * 900 + "]" * 900)}, {"x": {f"{n}": 1 for n in range(900)}}])
async def test_a_query_string_weighs_and_costs_what_a_body_does(
    world: World, monkeypatch: pytest.MonkeyPatch, charged: list[int], variables: dict[str, Any]
) -> None:
    read: list[Any] = []
    real = endpoint.read_query
    monkeypatch.setattr(endpoint, "read_query", lambda texts: read.append(texts) or real(texts))
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    asked = {"query": PARTNER, "variables": json.dumps(variables, separators=(",", ":"))}
    assert (await world.http.get("/graphql", params=asked, headers=headers)).status_code == 200
    monkeypatch.setattr(shares, "REQUEST_MAX_WEIGHT", 60_000)
    answer = await world.http.get("/graphql", params=asked, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (413, "BODY_TOO_LARGE")
    assert len(read) == 1
    charged.clear()
    await world.http.get("/graphql", params={"query": PARTNER, "extensions": '"%s"' % ("x" * 20_000)}, headers=headers)
    assert 200 <= charged[0] < 220


async def test_a_member_has_a_small_share_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MEMBERS_HELD_MAX_WEIGHT", 100_000)
    ann = await ann_logs_in(world)
    async with unfinished(world, ann, 60_000, 64_000), unfinished(world, ann, 60_000, 64_000) as reader:
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 429")
        assert (await world.post(ann, "{ __typename }")).status_code == 200


async def test_nothing_is_held_once_all_is_answered_or_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[shares.Requests] = []
    holding = shares.Requests.holding
    monkeypatch.setattr(shares.Requests, "holding", lambda self: made.append(self) or holding(self))
    token = await world.token("grocer")
    async with unfinished(world, token, 400_000, 500_000), unfinished(world, token, 400_000):
        large = {**world.purchase("1.00"), "lines": [{"sku": "s", "amount": "0.01", "quantity": "1"}] * 200}
        assert (await world.post(token, RECORD, input=large)).status_code == 200
        await asyncio.sleep(0.2)
        assert sum(made[0]._weight.values()) >= 800_000
    async with asyncio.timeout(5):
        while made[0]._weight:
            await asyncio.sleep(0.02)


async def test_what_requests_that_failed_leave_to_the_collector_is_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutation that is broken off leaves rings of frames that hold all that it was asked, and few objects beside."""
    monkeypatch.setattr(shares, "COLLECTED_WEIGHT", 1_000_000)
    token, collected = await world.token("grocer"), 0

    def count(phase: str, info: dict[str, int]) -> None:
        nonlocal collected
        collected += phase == "start" and info["generation"] == 2

    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    items = [{**world.purchase("1.00"), "idempotencyKey": f"k{n}", "receipt": f"k{n}"} for n in range(500)]
    gc.disable()
    gc.callbacks.append(count)
    try:
        for _ in range(6):
            async with world.http.stream("POST", "/graphql", json={"query": BUY, "variables": {"i": items}}, headers=headers):
                pass
    finally:
        gc.callbacks.remove(count)
        gc.enable()
    assert collected >= 2
