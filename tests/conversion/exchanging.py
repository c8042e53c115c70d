"""What tests of the exchange ask for, and how they make the airline's system fail."""

from typing import Any

import httpx

from tests.world import World

QUOTE = """mutation($input: QuoteConversionInput!) { quoteConversion(input: $input) {
  quote { id take give rate { take give } expiresAt } errors { code message } } }"""
CONVERT = """mutation($input: ConvertPointsInput!) { convertPoints(input: $input) {
  conversion { id points give state partnerReference } errors { code message } } }"""
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
