"""Every invariant can fail: each is broken on purpose, past the walls, and named."""

import pytest

from gateway.ledger.verify import invariants
from tests.world import World

BREAK = {
    "entries_balance_to_zero": "update wallet set available = available + 1",
    "wallets_equal_their_entries": "update wallet set available = available + 1",
    "wallets_equal_their_lots": "update lot set remaining = remaining - 1, spent = spent + 1 where remaining > 0",
    "held_equals_open_holds": "update hold set state = 'open'",
    "lots_add_up": "alter table lot drop constraint lot_check; update lot set original = original + 1",
    "lots_equal_their_takes": "delete from lot_take where effect = 'spent'",
    "takes_equal_their_entries": "update lot_take set points = points + 1 where effect = 'spent'",
    "returns_are_taken_back_or_owed": "update purchase_return set owed = owed + 1",
    "debt_equals_what_was_not_repaid": "update wallet set owed = owed + 1, available = available + 1",
    "purchases_equal_their_returns": "update purchase set returned_minor = returned_minor + 1 where returns > 0",
    "earnings_equal_their_purchases": "update purchase set points = points + 1",
    "nobody_is_below_zero": "alter table wallet drop constraint wallet_available_check; update wallet set available = -1",
    "deltas_equal_entries": "update delta set points = points + 1 where kind = 'earning'",
    "deltas_equal_purchases": "update delta set transactions = transactions + 1 where kind = 'earning'",
    "entries_belong_to_their_transactions": "delete from transaction where kind = 'redemption'",
    "transactions_are_complete": "delete from redemption",
    "conversions_follow_their_quotes": "update quote set give = give + 1",
    "holds_are_resolved_once": "update hold set state = 'released'",
    "receipts_are_posted_once": "delete from receipt",
    "answers_name_transactions": "update idempotency set transaction_id = gen_random_uuid() where refusal is null",
    "buckets_are_the_members_own": "update wallet set bucket = (bucket + 1) % 256",
    "statements_equal_the_sums": "update statement set issued = issued + 1",
    "lines_follow_their_prices": "update statement_line set gross_minor = gross_minor + 1",
}


@pytest.fixture
async def lively(world: World) -> World:
    """A world in which everything has happened once."""
    from tests.conversion.test_convert import convert, quote
    from tests.settlement.test_close import close_through

    await world.record("900.00", receipt="r")
    await world.give_back("r", total={"amount": "100.00", "currency": "USD"})
    await world.redeem(300)
    quoted = (await quote(world))["quote"]
    assert (await convert(world, quoted["id"]))["errors"] == []
    await close_through(world, 10)
    assert await world.broken() == []
    return world


def test_every_invariant_is_broken_here_on_purpose() -> None:
    assert {invariant.name for invariant in invariants()} == set(BREAK)
    assert all(invariant.sentence for invariant in invariants())


@pytest.mark.parametrize("name", list(BREAK))
async def test_a_broken_invariant_is_named(lively: World, name: str) -> None:
    for statement in BREAK[name].split("; "):
        await lively.sql(statement)
    assert name in await lively.broken()
