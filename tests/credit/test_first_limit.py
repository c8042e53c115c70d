"""A partner's first credit limit, while its purchases wait in a batch with those of one that has a limit."""

import asyncio
import re

import asyncpg

from tests.credit.test_credit import CREDIT, set_credit, usd
from tests.ledger.test_batches import waits
from tests.points import ENROL
from tests.world import Place, World, open_world

LOCK = "select from credit_slot order by partner_id, slot for update"  # as whoever notes a payment does
PURCHASES = 20


async def test_who_gets_a_first_limit_while_a_batch_waits_is_not_charged_for_it(place: Place) -> None:
    async with open_world(place, lanes=1) as world:
        await first_limit(world)


async def first_limit(world: World) -> None:
    await set_credit(world, "1000.00")
    fuel = (await world.ask("fuel", "{ partner { id } }"))["partner"]["id"]
    operator = await world.operator()
    for n in range(PURCHASES):
        await world.ask("fuel", ENROL, i={"externalId": f"m{n}"})
    first, second = [await asyncpg.connect(world.dsn) for _ in range(2)]
    await first.execute(f"begin; {LOCK}")
    ahead = [asyncio.create_task(world.record("1.00", receipt="ahead"))]
    await waits(world, 1)
    bought = []
    for n in range(PURCHASES):  # those of both partners come in one batch, behind the one that waits
        bought.append(asyncio.create_task(world.record("7.00")))
        bought.append(asyncio.create_task(world.record("7.00", "fuel", receipt=f"r{n}", member={"externalId": f"m{n}"})))
    holding = asyncio.create_task(second.execute(f"begin; {LOCK}"))
    await waits(world, 2)
    async with asyncio.timeout(10):
        while float(re.findall(r"^gateway_items_waiting (\S+)", (await world.http.get("/metrics")).text, re.M)[0]) < 2 * PURCHASES:
            await asyncio.sleep(0.02)
    await first.close()
    await holding
    await waits(world, 1)
    assert (await world.ask(operator, CREDIT, i={"partner": fuel, "limit": usd("1000.00")}))["setPartnerCredit"]["errors"] == []
    await second.close()
    assert [each["errors"] for each in await asyncio.gather(*ahead, *bought)] == [[]] * (1 + 2 * PURCHASES)
    assert await world.broken() == []
    for n in range(PURCHASES):
        await world.give_back(f"r{n}", "fuel", total=usd("7.00"))
    assert (await world.ask("fuel", "{ partnerCredit { used { amount } } }"))["partnerCredit"] == {"used": {"amount": "0.00"}}
    assert await world.broken() == []
