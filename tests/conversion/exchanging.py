"""What tests of the exchange ask for, and how a partner's system fails them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.points import bob_joins, mint
from tests.world import World, serving

QUOTE = """mutation($input: QuoteConversionInput!) { quoteConversion(input: $input) {
  quote { id take give rate { take give } expiresAt } errors { code message } } }"""
CONVERT = """mutation($input: ConvertPointsInput!) { convertPoints(input: $input) {
  conversion { id points give state partnerReference } errors { code message } } }"""
LINK = "mutation($i: LinkMembershipInput!) { linkMembership(input: $i) { errors { code } } }"
ANN = {"externalId": "ann"}


async def quote(world: World, take: int = 200, **changes: Any) -> dict[str, Any]:
    input = {"from": "MER", "to": "SKY", "take": take, "member": ANN, **changes}
    return (await world.ask("airline", QUOTE, input=input))["quoteConversion"]


async def convert(world: World, quote_id: str, key: str = "k") -> dict[str, Any]:
    input = {"idempotencyKey": key, "quote": quote_id, "member": ANN}
    return (await world.ask("airline", CONVERT, input=input))["convertPoints"]


async def fault(world: World, mode: str, times: int = 1) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.put(f"{world.airline_url}/faults", json={"mode": mode, "times": times})


async def miles(world: World) -> int:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"{world.airline_url}/accounts/ann")).json()["balance"]


class Exchanger:
    """A partner's system that credits at once, but to some accounts not until it is told to."""

    def __init__(self, *slow: str, reference: str = "r") -> None:
        self.slow, self.reference, self.go_on = slow, reference, asyncio.Event()
        self.asked, self.credited = Counter[str](), Counter[str]()

    async def credit(self, request: Request) -> Response:
        account = request.path_params["account"]
        self.asked[account] += 1
        if account in self.slow:
            await self.go_on.wait()
        self.credited[account] += 1
        return JSONResponse({"reference": self.reference, "balance": 1})

    @asynccontextmanager
    async def behind(self, world: World, partner: str) -> AsyncIterator[None]:
        """It is the system of a partner."""
        app = Starlette(routes=[Route("/accounts/{account}/credits/{reference}", self.credit, methods=["PUT"])])
        async with serving(app) as (url, *_):
            await world.sql(f"update partner set protocol = 'rest_json', endpoint = '{url}' where code = '{partner}'")
            yield


async def exchange(world: World, token: str, key: str, source: str = "MER", target: str = "SKY") -> dict[str, Any]:
    quoted = (await world.ask(token, QUOTE, input={"from": source, "to": target, "take": 200}))["quoteConversion"]["quote"]
    answer: dict[str, Any] = (await world.ask(token, CONVERT, input={"idempotencyKey": key, "quote": quoted["id"]}))["convertPoints"]
    return answer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def members(world: World) -> tuple[str, str]:
    """Tokens of Ann and Bob, who have an account at the airline and points enough."""
    await bob_joins(world)
    await world.ask("airline", LINK, i={"externalId": "bob", "card": "CARD-2"})
    found = dict(await world.sql("select number, member_id from card"))
    for card in found:
        await world.record("9000.00", member={"card": card})
    ann, bob = [await mint(world, "member", found[card]) for card in ("CARD-1", "CARD-2")]
    return ann, bob
