"""What was quoted and converted in time is still the answer to its key, whoever may not any more."""

import pytest

from tests.access.consenting import agree, exchange
from tests.conversion.exchanging import CONVERT, QUOTE, fault
from tests.points import ann_hands_over, codes, run_job
from tests.world import World


@pytest.mark.parametrize(("change", "told"), [
    ("update card set status = 'blocked' where number = 'CARD-1'", "CARD_BLOCKED"),
    ("update membership set status = 'suspended'", "MEMBERSHIP_SUSPENDED"),
])  # fmt: skip
async def test_a_partner_that_asks_again_is_told_what_was_done_and_begins_nothing(world: World, change: str, told: str) -> None:
    await world.record("2000.00")
    card = {"card": "CARD-1"}
    quote = {"from": "MER", "to": "SKY", "take": 200, "member": card}
    quoted, unused = [(await world.ask("airline", QUOTE, input={**quote, "idempotencyKey": key}))["quoteConversion"] for key in "qu"]
    asked = {"idempotencyKey": "c", "quote": quoted["quote"]["id"], "member": card}
    done = (await world.ask("airline", CONVERT, input=asked))["convertPoints"]
    assert (done["errors"], done["conversion"]["state"]) == ([], "COMPLETED")
    await world.sql(change)
    assert (await world.ask("airline", QUOTE, input={**quote, "idempotencyKey": "q"}))["quoteConversion"] == quoted
    assert (await world.ask("airline", CONVERT, input=asked))["convertPoints"] == done
    assert codes((await world.ask("airline", QUOTE, input={**quote, "take": 400, "idempotencyKey": "q"}))["quoteConversion"]) == ["IDEMPOTENCY_KEY_REUSED"]
    for other in ({"idempotencyKey": "new"}, {}):
        assert codes((await world.ask("airline", QUOTE, input={**quote, **other}))["quoteConversion"]) == [told]
    begun = {"idempotencyKey": "d", "quote": unused["quote"]["id"], "member": card}
    assert codes((await world.ask("airline", CONVERT, input=begun))["convertPoints"]) == [told]
    assert (await world.sql("select count(*), (select count(*) from quote) from conversion"))[0][:] == (1, 2)
    assert await world.broken() == []


async def suspend_at_fuel(world: World) -> None:
    await world.sql("update membership set status = 'suspended' where partner_id = (select partner_id from partner where code = 'fuel')")


async def test_a_partner_that_acts_and_has_suspended_the_member_is_told_what_was_done_and_begins_nothing(world: World) -> None:
    await world.record("2000.00")
    await agree(world, "points:convert")
    acting = (await exchange(world, await ann_hands_over(world, "points:convert"))).json()["access_token"]
    quote = {"from": "MER", "to": "SKY", "take": 200}
    quoted, unused = [(await world.ask(acting, QUOTE, input={**quote, "idempotencyKey": key}))["quoteConversion"] for key in "qu"]
    asked = {"idempotencyKey": "c", "quote": quoted["quote"]["id"]}
    done = (await world.ask(acting, CONVERT, input=asked))["convertPoints"]
    assert (done["errors"], done["conversion"]["state"]) == ([], "COMPLETED")
    await suspend_at_fuel(world)
    assert (await world.ask(acting, QUOTE, input={**quote, "idempotencyKey": "q"}))["quoteConversion"] == quoted
    assert (await world.ask(acting, CONVERT, input=asked))["convertPoints"] == done
    assert codes((await world.ask(acting, QUOTE, input={**quote, "idempotencyKey": "new"}))["quoteConversion"]) == ["MEMBERSHIP_SUSPENDED"]
    begun = {"idempotencyKey": "d", "quote": unused["quote"]["id"]}
    assert codes((await world.ask(acting, CONVERT, input=begun))["convertPoints"]) == ["MEMBERSHIP_SUSPENDED"]
    assert (await world.sql("select count(*), (select count(*) from quote) from conversion"))[0][:] == (1, 2)
    assert await world.broken() == []


async def test_a_partner_that_acts_learns_what_became_of_a_conversion_whose_answer_was_lost(world: World) -> None:
    await world.record("2000.00")
    await agree(world, "points:convert")
    acting = (await exchange(world, await ann_hands_over(world, "points:convert"))).json()["access_token"]
    quoted = (await world.ask(acting, QUOTE, input={"from": "MER", "to": "SKY", "take": 200}))["quoteConversion"]
    asked = {"idempotencyKey": "c", "quote": quoted["quote"]["id"]}
    await fault(world, "lose_answer")
    assert codes((await world.ask(acting, CONVERT, input=asked))["convertPoints"]) == ["STATE_CONFLICT"]
    await suspend_at_fuel(world)
    await world.sql("update conversion set asking_until = null, updated_at = updated_at - interval '1 hour'")
    await run_job(world, "conversions")
    told = (await world.ask(acting, CONVERT, input=asked))["convertPoints"]
    assert (told["errors"], told["conversion"]["state"]) == ([], "COMPLETED")
    assert await world.available() == 1_800
