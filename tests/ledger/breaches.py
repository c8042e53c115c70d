"""Breaches of every invariant, as somebody past the walls would make them: for each, every way in which it can break.

Statements of one breach are separated by "; ", and the last of them must change something.
"""

SECOND_ENTRY = (
    "insert into further_entry select bucket, transaction_id, 2, kind, member_id, programme_id, account, partner_id, contract_id, "
    "points, period from transaction where points is not null and kind = '{}'"
)
BREAK: dict[str, tuple[str, ...]] = {
    "entries_balance_to_zero": (
        "update wallet set available = available + 1",
        "update transaction set points = points + 1 where kind = 'earning'",
        "update further_entry set points = points + 1 where kind = 'expiry'",
    ),
    "wallets_equal_their_entries": (
        "update wallet set available = available + 1",
        "update wallet set pending = pending + 1",
        "update wallet set held = held + 1",
        "update wallet set owed = owed + 1",
        "delete from wallet",
        "update transaction set points = null where kind = 'redemption'",
    ),
    "wallets_equal_their_lots": (
        "update lot set remaining = remaining - 1, spent = spent + 1 where remaining > 0",
        "update lot set pending = pending - 1, returned = returned + 1 where pending > 0",
        "update lot set held = held - 1, spent = spent + 1 where held > 0",
        "delete from lot",
        "delete from wallet",
    ),
    "nobody_is_below_zero": (
        "update wallet set available = -1",
        "update wallet set pending = -1",
        "update wallet set held = -1",
        "update wallet set owed = -1",
    ),
    "pending_equals_what_has_not_matured": (
        "update maturing set cancelled = cancelled + 1 where matured_at is null",
        "update maturing set matured_at = now() where matured_at is null",
        "update maturing set matured_at = null",
        "delete from maturing where matured_at is null",
        "delete from lot where pending > 0",
    ),
    "held_equals_open_holds": (
        "update wallet set held = held + 1",
        "update hold set state = 'released' where state = 'open'",
        "delete from wallet",
        "update hold_lot set points = points + 1",
        "update hold set captured = captured + 1",
        "update hold set released = released + 1",
        "update lot set held = held + 1",
        "delete from hold_lot",
    ),
    "debt_equals_what_was_not_repaid": (
        "update wallet set owed = owed + 1",
        "update purchase_return set owed = owed + 1",
        "delete from lot_take where effect = 'repaid'",
        "delete from wallet",
    ),
    "lots_add_up": (
        "update lot set original = original + 1",
        "update lot set remaining = -1, spent = spent + remaining + 1",
        "update lot set held = -1, spent = spent + held + 1",
        "update lot set pending = -1, spent = spent + pending + 1",
        "update lot set spent = -1, remaining = remaining + spent + 1",
        "update lot set expired = -1, remaining = remaining + expired + 1",
        "update lot set returned = -1, remaining = remaining + returned + 1",
        "update lot set moved = -1, remaining = remaining + moved + 1",
    ),
    "lots_equal_what_came_in": (
        "update transaction set expires_on = expires_on + 1 where kind = 'earning'",
        "update transaction set partner_id = gen_random_uuid() where kind = 'earning'",
        "update adjustment set expires_on = expires_on + 1 where points > 0",
        "delete from transfer where direction = 'in'",
        "delete from lot",
        "update lot set funder_id = gen_random_uuid()",
    ),
    "lots_equal_their_takes": (
        "delete from lot_take where effect = 'spent'",
        "delete from lot_take where effect = 'moved'",
        "delete from lot_take where effect = 'expired'",
        "delete from lot_take where effect = 'returned'",
        "delete from lot_take where effect = 'repaid'",
        "update lot_take set restored = restored - 1 where restored > 0",
    ),
    "takes_equal_their_entries": (
        "update lot_take set points = points + 1 where effect = 'spent'",
        "update lot_take set points = points + 1 where effect = 'expired'",
        "update lot_take set points = points + 1 where effect = 'moved'",
        "delete from lot_take where transaction_id in (select transaction_id from transaction where kind = 'conversion')",
        "delete from lot_take where transaction_id in (select transaction_id from transaction where kind = 'adjustment')",
        "update transaction set points = points - 1 where kind = 'redemption'",
    ),
    "takes_are_of_the_members_own_lots": (
        "update lot_take k set lot_id = l.lot_id from lot l, lot o where k.effect = 'spent' and o.lot_id = k.lot_id"
        " and l.member_id <> o.member_id",
        "update lot set member_id = gen_random_uuid()",
        "update lot set programme_id = (select programme_id from programme where code = 'SKY')",
        "update hold set member_id = gen_random_uuid()",
        "update hold set member_id = gen_random_uuid() where captured > 0; delete from hold_lot",
        "update hold set programme_id = gen_random_uuid(); delete from hold_lot",
        "update hold set partner_id = gen_random_uuid(); delete from hold_lot",
    ),
    "what_runs_out_first_is_taken_first": (
        # The first purchase runs out before the last, out of which nothing was taken until the first was gone.
        "update transaction set posted_at = posted_at + interval '1 day' where kind = 'redemption'; "
        "update lot set expires_on = expires_on + 700 where spent > 0; update lot set expires_on = '2028-01-31' where spent = 0",
        "update hold set placed_at = placed_at + interval '1 day'; "
        "update lot set expires_on = expires_on + 700 where spent > 0; update lot set expires_on = '2028-01-31' where spent = 0",
    ),
    "what_runs_out_is_looked_for": ("delete from expiry_due", "update expiry_due set expires_on = expires_on + 1"),
    "buckets_are_the_members_own": (
        "update wallet set bucket = (bucket + 1) % 256",
        "update member set bucket = (bucket + 1) % 256",
    ),
    "transactions_are_complete": (
        "delete from purchase_return",
        "delete from redemption",
        "update conversion set state = 'released'",
        "delete from conversion",
        "delete from reversal",
        "delete from transfer",
        "delete from adjustment",
        "update adjustment set state = 'rejected'",
        "delete from further_entry where kind = 'expiry'",
    ),
    "entries_belong_to_their_transactions": (
        "update further_entry set member_id = gen_random_uuid()",
        "update further_entry set kind = 'transfer' where kind = 'expiry'",
        "update further_entry set period = period + 31",
        "update further_entry set transaction_id = gen_random_uuid()",
        "delete from period",
        SECOND_ENTRY.format("earning"),
        SECOND_ENTRY.format("redemption"),
    ),
    "transactions_lie_in_the_month_of_their_day": (
        "update transaction set occurred_at = occurred_at + interval '40 days' where kind = 'earning'",
        "update transaction set period = '2027-12-01' where kind = 'adjustment'",
        "update transaction set missed_period = period",
        "update transaction set missed_period = date_trunc('month', occurred_at)::date, period = '2026-01-01' where kind = 'expiry'",
    ),
    "memberships_are_the_members_own": (
        "update transaction set membership_id = gen_random_uuid() where kind = 'earning'",
        "update transaction t set membership_id = m.membership_id from membership m "
        "where t.kind = 'redemption' and m.bucket = t.bucket and m.partner_id <> t.partner_id",
        "update hold set membership_id = gen_random_uuid() where membership_id is not null",
    ),
    "contracts_are_the_partners_own": (
        "update transaction set contract_id = gen_random_uuid() where kind = 'redemption'",
        "update transaction t set contract_id = c.contract_id from contract c where t.kind = 'earning' and c.partner_id <> t.partner_id",
        "update further_entry set contract_id = gen_random_uuid()",
        "update transaction set contract_id = gen_random_uuid() where kind = 'return'",
    ),
    "receipts_are_posted_once": ("drop index transaction_receipt; update transaction set receipt = 'r' where kind = 'earning'",),
    "answers_name_transactions": ("update idempotency set transaction_id = gen_random_uuid() where refusal is null",),
    "what_was_posted_answers_a_key": (
        "delete from idempotency where transaction_id in (select transaction_id from redemption)",
        "delete from idempotency where transaction_id in (select transaction_id from purchase)",
        "delete from idempotency where transaction_id in (select transaction_id from purchase_return)",
        "update idempotency set transaction_id = null, refusal = 'INSUFFICIENT_POINTS' where refusal is null",
    ),
    "everything_is_announced": (
        "delete from outbox where kind = 'redemption'",
        "delete from outbox where kind = 'expiry'",
        "update outbox set kind = 'redemption' where kind = 'matured'",
        "insert into outbox (kind, posted_at, members, transactions) select kind, posted_at, members, transactions from outbox",
    ),
    "returns_are_taken_back_or_owed": (
        "update purchase_return set owed = owed + 1",
        "update purchase_return set points = points + 1",
        "delete from lot_take where effect = 'returned'",
    ),
    "returns_stay_within_purchases": (
        "update purchase_return set amount_minor = 1000000000",
        "update purchase_return set points = 1000000000",
        "update purchase_return set purchase_id = gen_random_uuid()",
    ),
    "redemptions_equal_their_entries": (
        "update redemption set partner_id = gen_random_uuid()",
        "update redemption set membership_id = gen_random_uuid()",
        "update redemption set programme_id = gen_random_uuid()",
        "update redemption set points = points + 1",
        "update transaction set points = null where kind = 'redemption'",
    ),
    "captures_equal_their_redemptions": (
        "update redemption set hold_id = null",
        "update hold set captured = captured + 1",
        "update conversion set take = take + 1",
        "update hold set state = 'released' where membership_id is null",
    ),
    "holds_are_resolved_once": (
        "update hold set state = 'released' where membership_id is null",
        "update hold set state = 'open' where membership_id is null",
        "update conversion set state = 'held'",
        "update conversion set state = 'refused'",
    ),
    "reversals_stay_within_redemptions": (
        "update redemption set restored = restored + 1 where restored > 0",
        "update reversal set points = points + 1",
        "update lot_take set restored = restored + 1 where restored > 0",
        "update redemption set restored = points + 1; update reversal v set points = r.points + 1 from redemption r "
        "where r.transaction_id = v.redemption_id; update lot_take k set restored = r.points + 1 from redemption r "
        "where r.transaction_id = k.transaction_id",
    ),
    "transfers_equal_their_entries": (
        "update transfer set points = points + 1",
        "update transfer set direction = 'out'",
        "update further_entry set points = points - 1 where kind = 'transfer'",
    ),
    "transfers_arrive": (
        "update transfer set points = points + 1 where direction = 'in'",
        "delete from transfer where direction = 'in'",
        "update transfer set direction = 'in'",
        "update further_entry set points = points + 1 where account = 'transit' and points > 0",
    ),
    "conversions_follow_their_quotes": (
        "update quote set give = give + 1",
        "update quote set take = take + 2",
        "update conversion set give = give + 1",
        "update conversion_rate set give = give + 50",
        "update further_entry set points = points - 1 where account = 'custody'",
        "update further_entry set points = points - 1 where account = 'exchange' and points < 0",
        "delete from further_entry where kind = 'conversion'",
        "update conversion set state = 'released'",
    ),
    "adjustments_were_decided": (
        "update adjustment set points = points + 1",
        "update adjustment set state = 'rejected'",
        "update adjustment set decided_by = requested_by",
        "delete from transaction where kind = 'adjustment'",
    ),
    "audit_log_is_chained": (
        "update audit_log set result = 'no'",
        "delete from audit_log where number = 1",
        "delete from audit_log where number = (select max(number) from audit_log)",
        "update audit_head set number = number + 1",
        "update audit_head set hash = '\\x00'",
    ),
    "deltas_equal_entries": (
        "update delta set points = points + 1 where kind = 'earning'",
        "update delta set period = period + 31",
        "update delta set contract_id = gen_random_uuid() where kind = 'conversion'",
        "delete from delta where kind = 'expiry'",
        "update transaction set points = points + 1 where kind = 'redemption'",
    ),
    "deltas_count_what_was_recorded": (
        *(
            f"update delta set transactions = transactions + 1 where kind = '{kind}'"
            for kind in ("earning", "return", "redemption", "reversal", "adjustment")
        ),
        "update delta set amount_minor = amount_minor + 1 where kind = 'earning'",
        "update delta set amount_minor = amount_minor + 1 where kind = 'return'",
        "update transaction set amount_minor = amount_minor + 1 where kind = 'earning'",
        "delete from delta where kind = 'reversal'",
    ),
    "statements_equal_the_sums": (
        *(
            f"update statement set {counted} = {counted} + 1"
            for counted in (
                "purchases", "amount_minor", "issued", "returns", "returned", "redemptions", "redeemed", "conversions",
                "converted_out", "converted_in",
            )
        ),
        "delete from delta",
    ),
    "standings_equal_the_entries": (
        "update period_programme set outstanding = outstanding + 1",
        "update period_programme set debt = debt + 1",
        "update period_programme set expired = expired + 1",
        "update transaction set period = '2026-09-01' where kind = 'adjustment'",
        "update further_entry set period = '2026-10-01' where kind = 'expiry'",
        "delete from further_entry where kind = 'conversion'",
    ),
    "lines_equal_the_sums": (
        *(
            f"update statement_line set points = points + 1 where kind = '{kind}'"
            for kind in ("issue", "return", "fee", "redeem", "reversal", "conversion")
        ),
        "delete from statement_line",
        "update statement_line set contract_id = gen_random_uuid()",
        "delete from delta",
    ),
    "lines_follow_their_prices": (
        "update statement_line set gross_minor = gross_minor + 1",
        "update statement_line set gross_minor = gross_minor + 1 where kind = 'conversion'",
        "update contract set redeem_price = redeem_price * 2",
        "update statement set net_minor = net_minor + 1",
        "delete from statement_line",
    ),
    "used_credit_equals_what_was_charged": (
        "update credit_slot set used = used + 0.000001",
        "update credit_payment set amount_minor = amount_minor + 1",
        "update transaction set charged = not charged where kind = 'earning'",
        "update purchase_return set points = points + 1",
        "update debt set points = points + 1 where charged",
        "delete from credit_payment",
    ),
    "every_debt_is_borne": (
        "delete from debt",
        "update debt set points = points - 1",
        "update wallet set owed = owed + 1",
    ),
    "nobody_bears_more_than_it_overdrew": (
        "update debt set fresh = false, partner_id = gen_random_uuid()",
        "update debt set fresh = false, contract_id = gen_random_uuid()",
        "update debt set fresh = false, charged = not charged",
    ),
}  # fmt: skip

# The walls of the tables themselves, which would stop some breaches, come down first.
UNCHECKED = """
do $$ declare c record; begin
  for c in select conrelid::regclass as table, conname from pg_constraint
            where contype in ('c', 'f') and connamespace = 'public'::regnamespace and conparentid = 0 loop
    execute format('alter table %s drop constraint %I', c.table, c.conname);
  end loop;
end $$
"""
