"""How connections are accepted, and how little a request leaves behind."""

import asyncio
import gc
import socket
from collections import Counter
from dataclasses import replace

import uvloop

from gateway.lookups import Loop
from gateway.server import ACCEPTED_AT_ONCE, doors
from gateway.settings import read_settings
from tests.world import World

SIMULATE = "query($i: PurchaseInput!) { simulatePurchase(input: $i) { points } }"
BUY = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { earning { points } errors { code } } }"


def test_a_round_of_the_loop_accepts_many_connections() -> None:
    """Behind those who come at once, the last one waits a few rounds, however long these are."""
    uvloop.run(accept_many(), loop_factory=Loop)


async def accept_many() -> None:
    loop, rounds, accepted = asyncio.get_running_loop(), 0, []

    class Door(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(rounds)

    listening = doors(replace(read_settings({}), port=0))
    assert len({door.getsockname() for door in listening}) == 1
    servers = [await loop.create_server(Door, sock=door, backlog=2_048) for door in listening]
    coming = [socket.create_connection(listening[0].getsockname()) for _ in range(160)]
    while len(accepted) < len(coming):
        rounds += 1
        await asyncio.sleep(0)
    assert rounds < 40
    assert max(Counter(accepted).values()) >= ACCEPTED_AT_ONCE
    for each in coming:
        each.close()
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_what_was_asked_and_answered_goes_without_the_collector(world: World) -> None:
    """Rings of many large requests would be looked for again and again, for half a second each time."""
    total, at = {"amount": "1.00", "currency": "USD"}, world.clock.now().isoformat()

    async def buy(number: int) -> None:
        known = {"member": {"externalId": "ann"}, "occurredAt": at, "total": total}
        items = [{"idempotencyKey": f"{number}-{n}", "receipt": f"{number}-{n}", **known} for n in range(50)]
        answered = await world.ask("grocer", BUY, i=items)
        assert [each["earning"]["points"] for each in answered["recordPurchases"]] == [1] * 50
        queried = await world.ask("grocer", '{ membership(ref: {externalId: "ann"}) { wallets { available } activity(first: 5) { nodes { points } } } }')
        assert queried["membership"]["wallets"][0]["available"] == 50 * (number + 1)
        refused = await world.post("grocer", "mutation($i: RedeemPointsInput!) { redeemPoints(input: $i) { errors { code } } }",
                                   i={"idempotencyKey": "k", "member": {"externalId": "ann"}, "points": 10_000, "programme": "MER"})  # fmt: skip
        assert refused.status_code == 200
        for wrong in ({"i": [{"x": "y"}]}, {"i": [{**items[0], "occurredAt": 7}]}):
            assert (await world.post("grocer", BUY, **wrong)).status_code in (200, 400)
        nobody = {**items[0], "member": {"externalId": "nobody"}}
        assert (await world.post("grocer", SIMULATE, i=nobody)).json()["errors"][0]["extensions"]["code"] == "MEMBER_UNKNOWN"

    await buy(0)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await buy(1)
        gc.collect()
        left = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert [name for name in left if name.startswith(("gateway.", "graphql.", "strawberry."))] == []
