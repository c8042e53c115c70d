"""Exchanges at partners' systems that are slow, silent or odd: none keeps anybody else's waiting."""

import asyncio
from datetime import timedelta

import pytest

from gateway.coalition import catalogue, connections
from gateway.coalition.connections import CREDITS_OF_ONE
from gateway.conversion import convert as converting
from partners.protocols import rest_json
from tests.conversion.exchanging import Exchanger, exchange, fault, members, until
from tests.points import codes, run_job
from tests.world import World


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a partner's system is is read each time that it is asked, and it has all the time that a test takes."""
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)
    monkeypatch.setattr(rest_json, "TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(converting, "ASK_SECONDS", 60)


FUELS_OWN = "mutation($i: CreateProgrammeInput!) { createProgramme(input: $i) { errors { code } } }"
RATE = "mutation($i: PublishRateInput!) { publishConversionRate(input: $i) { errors { code } } }"


async def test_one_members_exchanges_leave_room_at_the_partner_for_everybody_elses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CREDITING_SECONDS", 0.3)
    ann, bob = await members(world)
    airline = Exchanger("ann")
    async with airline.behind(world, "airline"):
        anns = [asyncio.create_task(exchange(world, ann, f"a{n}")) for n in range(20)]
        await until(lambda: airline.asked["ann"] == CREDITS_OF_ONE)
        done = await asyncio.gather(*(exchange(world, bob, f"b{n}") for n in range(8)))
        assert [each["conversion"]["state"] for each in done] == ["COMPLETED"] * 8
        assert (airline.asked["ann"], airline.credited["ann"]) == (CREDITS_OF_ONE, 0)
        # What gets no turn in time was never asked for, and its points are given back.
        await until(lambda: sum(each.done() for each in anns) == 20 - CREDITS_OF_ONE)
        waited = [each for each in anns if each.done()]
        assert [codes(each.result()) for each in waited] == [["PARTNER_UNAVAILABLE"]] * len(waited)
        airline.go_on.set()
        assert len([each for each in await asyncio.gather(*anns) if each["conversion"]]) == CREDITS_OF_ONE
    assert airline.credited == {"ann": CREDITS_OF_ONE, "bob": 8}
    assert await world.broken() == []


async def test_who_waits_for_one_partners_system_is_served_by_anothers_at_once(world: World) -> None:
    ann, _ = await members(world)
    await fuels_own_programme(world)
    airline = Exchanger("ann")
    async with airline.behind(world, "airline"):
        anns = [asyncio.create_task(exchange(world, ann, f"a{n}")) for n in range(12)]
        await until(lambda: airline.asked["ann"] == CREDITS_OF_ONE)
        assert (await exchange(world, ann, "f", target="FUE"))["conversion"]["state"] == "COMPLETED"
        assert airline.credited["ann"] == 0
        airline.go_on.set()
        await asyncio.gather(*anns)
    assert await world.broken() == []


async def fuels_own_programme(world: World) -> None:
    """Litres, which the fuel station's system keeps; it speaks as the airline's."""
    operator = await world.operator()
    fuel = (await world.ask("fuel", "{ partner { id } }"))["partner"]["id"]
    await world.ask(operator, FUELS_OWN, i={"code": "FUE", "name": "Litres", "custody": "PARTNER", "issuer": fuel})
    since = (world.clock.now() - timedelta(seconds=1)).isoformat()
    await world.ask(operator, RATE, i={"from": "MER", "to": "FUE", "take": 200, "give": 100, "minimum": 200, "increment": 200, "validFrom": since})
    await world.sql(f"update partner set protocol = 'rest_json', endpoint = '{world.airline_url}' where code = 'fuel'")


async def test_a_silent_partners_exchanges_keep_no_other_partners_from_being_moved_on(world: World) -> None:
    ann, _ = await members(world)
    await fuels_own_programme(world)
    for n in range(4):
        await fault(world, "lose_answer")
        assert (await exchange(world, ann, f"a{n}"))["errors"][0]["code"] == "STATE_CONFLICT"
    world.clock.set(world.clock.now() + timedelta(seconds=1))
    await fault(world, "lose_answer")
    assert (await exchange(world, ann, "f", target="FUE"))["errors"][0]["code"] == "STATE_CONFLICT"
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    airline = Exchanger("ann")
    async with airline.behind(world, "airline"):
        running = asyncio.create_task(run_job(world, "conversions"))
        async with asyncio.timeout(30):
            while (await world.sql("select state from conversion where key = 'f'"))[0][0] != "completed":
                await asyncio.sleep(0.02)
        assert (airline.asked["ann"], airline.credited["ann"]) == (1, 0)
        airline.go_on.set()
        assert await running == 5
    assert {row[0] for row in await world.sql("select state from conversion")} == {"completed"}
    assert await world.broken() == []


async def test_a_partner_that_is_slow_is_asked_for_the_rest_in_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, _ = await members(world)
    for n in range(3):
        await fault(world, "lose_answer")
        await exchange(world, ann, f"a{n}")
    world.clock.set(world.clock.now() + timedelta(minutes=1))
    monkeypatch.setattr(converting, "RESUME_SECONDS", 0)
    left = "select count(*) from conversion where state <> 'completed'"
    for n in range(3):
        assert await run_job(world, "conversions") == 1
        assert (await world.sql(left))[0][0] == 2 - n
    assert await world.broken() == []


async def test_a_reference_that_cannot_be_shown_keeps_no_points_held(world: World) -> None:
    ann, _ = await members(world)
    async with Exchanger(reference="a\0b\u202e" + "c" * 1_000).behind(world, "airline"):
        done = (await exchange(world, ann, "a"))["conversion"]
    assert (done["state"], done["partnerReference"]) == ("COMPLETED", "a?b?" + "c" * 196)
    assert (await world.wallet())["held"] == 0
    assert await world.broken() == []
