"""Every invariant can fail: each is broken on purpose, past the walls, and named."""

import shutil

import asyncpg
import pytest

from gateway.database import Database
from gateway.embedded import EmbeddedPostgres
from gateway.ledger.verify import invariants, verify
from tests.conftest import create_database, open_folder
from tests.world import Founded, Place, World, open_world

BREAK = {
    "audit_log_is_chained": "select note_deed(now(), 'operator', null, 'c', null, 'look', 'ok', '{}', '\\x00'); update audit_log set result = 'no'",
    "entries_balance_to_zero": "update wallet set available = available + 1",
    "wallets_equal_their_entries": "update wallet set available = available + 1",
    "pending_equals_what_has_not_matured": "update maturing set cancelled = cancelled + 1 where matured_at is null",
    "reversals_stay_within_redemptions": "update redemption set restored = restored + 1 where restored > 0",
    "transfers_arrive": "update transfer set points = points + 1 where direction = 'in'",
    "adjustments_were_decided": "update adjustment set points = points + 1",
    "what_runs_out_is_looked_for": "delete from expiry_due",
    "everything_is_announced": "delete from outbox where kind = 'redemption'",
    "wallets_equal_their_lots": "update lot set remaining = remaining - 1, spent = spent + 1 where remaining > 0",
    "held_equals_open_holds": "alter table hold drop constraint hold_adds_up; update hold set state = 'open', captured = 0",
    "lots_add_up": "alter table lot drop constraint lot_check; update lot set original = original + 1",
    "lots_equal_their_takes": "delete from lot_take where effect = 'spent'",
    "takes_equal_their_entries": "update lot_take set points = points + 1 where effect = 'spent'",
    "returns_are_taken_back_or_owed": "update purchase_return set owed = owed + 1",
    "debt_equals_what_was_not_repaid": "update wallet set owed = owed + 1, available = available + 1",
    "returns_stay_within_purchases": "update purchase_return set amount_minor = 1000000",
    "lots_equal_what_came_in": "update transaction set expires_on = expires_on + 1 where kind = 'earning'",
    "nobody_is_below_zero": "alter table wallet drop constraint wallet_available_check; update wallet set available = -1",
    "deltas_equal_entries": "update delta set points = points + 1 where kind = 'earning'",
    "deltas_equal_purchases": "update delta set transactions = transactions + 1 where kind = 'earning'",
    "entries_belong_to_their_transactions": "update further_entry set member_id = gen_random_uuid()",
    "transactions_are_complete": "delete from redemption",
    "conversions_follow_their_quotes": "update quote set give = give + 1",
    "holds_are_resolved_once": "update hold set state = 'released' where state = 'captured'",
    "receipts_are_posted_once": "drop index transaction_receipt; update transaction set receipt = 'r' where kind = 'earning'",
    "what_was_posted_answers_a_key": "update idempotency set refusal = 'INSUFFICIENT_POINTS', transaction_id = null where transaction_id in (select transaction_id from redemption)",
    "redemptions_equal_their_entries": "update redemption set partner_id = gen_random_uuid()",
    "captures_equal_their_redemptions": "update redemption set hold_id = null",
    "transfers_equal_their_entries": "update transfer set points = points + 1",
    "answers_name_transactions": "update idempotency set transaction_id = gen_random_uuid() where refusal is null",
    "buckets_are_the_members_own": "update wallet set bucket = (bucket + 1) % 256",
    "statements_equal_the_sums": "update statement set issued = issued + 1",
    "lines_follow_their_prices": "update statement_line set gross_minor = gross_minor + 1",
}


async def live(world: World) -> None:
    """Everything happens once."""
    from tests.adjustment.test_adjust import adjust
    from tests.conversion.test_convert import convert, quote
    from tests.points import bob_joins, capture, hold, release, reverse, run_job, terms
    from tests.settlement.test_close import close_through
    from tests.transfer.test_transfer import give

    await bob_joins(world)
    await world.record("900.00", receipt="r")
    placed = (await hold(world, 50))["hold"]
    await capture(world, placed["id"], 20)
    await release(world, placed["id"])
    redeemed = (await world.redeem(40))["redemption"]
    await reverse(world, redeemed["id"], 10)
    assert (await give(world, 30))["errors"] == []
    assert (await adjust(world, 70))["errors"] == []
    await world.give_back("r", total={"amount": "100.00", "currency": "USD"})
    await world.redeem(300)
    quoted = (await quote(world))["quote"]
    assert (await convert(world, quoted["id"]))["errors"] == []
    await terms(world, pendingDays=200)
    await world.record("60.00")
    await run_job(world, "seal")
    await close_through(world, 10)
    assert await world.broken() == []


@pytest.fixture(scope="session")
async def lively(server: EmbeddedPostgres, founded: Founded) -> str:
    """The name of a database in which everything has happened once, to copy from."""
    folder = open_folder()
    dsn = await create_database(server, "lively", founded.template)
    async with open_world(Place(dsn, folder, founded)) as world:
        await live(world)
    shutil.rmtree(folder, ignore_errors=True)
    return "lively"


def test_every_invariant_is_broken_here_on_purpose() -> None:
    assert {invariant.name for invariant in invariants()} == set(BREAK)
    assert all(invariant.sentence for invariant in invariants())


@pytest.mark.parametrize("name", list(BREAK))
async def test_a_broken_invariant_is_named(server: EmbeddedPostgres, lively: str, name: str) -> None:
    dsn = await create_database(server, f"broken_{name}"[:60], lively)
    connection = await asyncpg.connect(dsn)
    for statement in BREAK[name].split("; "):
        await connection.execute(statement)
    await connection.close()
    database = Database(dsn, 2)
    await database.open()
    broken = [check.name async for check in verify(database) if not check.holds]
    await database.close()
    assert name in broken
