"""What was quoted and converted in time is still the answer to its key, whoever may not any more."""

import pytest

from tests.conversion.exchanging import CONVERT, QUOTE
from tests.points import codes
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
