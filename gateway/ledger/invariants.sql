-- name: entries_balance_to_zero()
-- The accounts and the wallets of every programme sum to zero, so what members hold is what accounts gave.
select w.programme_id, w.in_wallets, coalesce(a.in_accounts, 0) as in_accounts
  from (select programme_id, sum(available + pending + held - owed) as in_wallets from wallet group by programme_id) w
  left join (
    select e.programme_id, -sum(e.points) as in_accounts
      from entry e
     group by e.programme_id) a on a.programme_id = w.programme_id
 where w.in_wallets + coalesce(a.in_accounts, 0) <> 0;

-- name: wallets_equal_their_entries()
-- Every wallet holds exactly what its entries add up to.
select coalesce(w.member_id, e.member_id) as member, coalesce(w.programme_id, e.programme_id) as programme,
       w.balance, e.points
  from (select bucket, member_id, programme_id, available + pending + held - owed as balance from wallet) w
  full join (
    select bucket, member_id, programme_id, sum(points) as points
      from entry
     group by bucket, member_id, programme_id) e
    on e.bucket = w.bucket and e.member_id = w.member_id and e.programme_id = w.programme_id
 where coalesce(w.balance, 0) <> coalesce(e.points, 0);

-- name: wallets_equal_their_lots()
-- Available, held and pending points of a wallet are what is left, held and pending in its lots.
select coalesce(w.member_id, l.member_id) as member, w.available, l.remaining, w.held, l.held as held_in_lots, w.pending,
       l.pending as pending_in_lots
  from wallet w
  full join (
    select bucket, member_id, programme_id, sum(remaining) as remaining, sum(held) as held, sum(pending) as pending
      from lot
     group by bucket, member_id, programme_id) l
    on l.bucket = w.bucket and l.member_id = w.member_id and l.programme_id = w.programme_id
 where coalesce(w.available, 0) <> coalesce(l.remaining, 0)
    or coalesce(w.held, 0) <> coalesce(l.held, 0)
    or coalesce(w.pending, 0) <> coalesce(l.pending, 0);

-- name: pending_equals_what_has_not_matured()
-- Pending points of a lot are those of its purchases that have not matured, less what returns cancelled.
select l.lot_id, l.pending, coalesce(m.points, 0) as maturing
  from lot l
  full join (
    select bucket, lot_id, sum(points - cancelled) as points
      from maturing
     where matured_at is null
     group by bucket, lot_id) m on m.bucket = l.bucket and m.lot_id = l.lot_id
 where coalesce(l.pending, 0) <> coalesce(m.points, 0);

-- name: held_equals_open_holds()
-- Held points of a wallet are what is left of its open holds, and each hold adds up with the lots it reserved.
select coalesce(w.member_id, h.member_id) as member, w.held, h.points
  from wallet w
  full join (
    select bucket, member_id, programme_id, sum(points - captured - released) as points
      from hold
     where state = 'open'
     group by bucket, member_id, programme_id) h
    on h.bucket = w.bucket and h.member_id = w.member_id and h.programme_id = w.programme_id
 where coalesce(w.held, 0) <> coalesce(h.points, 0)
union all
select h.hold_id, h.points, coalesce(sum(t.points), 0)
  from hold h
  left join hold_lot t on t.bucket = h.bucket and t.hold_id = h.hold_id
 group by h.hold_id, h.points, h.captured, h.released
having (h.points, h.captured, h.released)
       <> (coalesce(sum(t.points), 0), coalesce(sum(t.captured), 0), coalesce(sum(t.released), 0))
union all
select l.lot_id, l.held, coalesce(sum(t.points - t.captured - t.released), 0)
  from lot l
  left join hold_lot t on t.bucket = l.bucket and t.lot_id = l.lot_id
 group by l.lot_id, l.held
having l.held <> coalesce(sum(t.points - t.captured - t.released), 0);

-- name: lots_add_up()
-- What a lot brought is what is left, held, pending, spent, expired, returned and moved, and none of it is below zero.
select lot_id, original, remaining, held, pending, spent, expired, returned, moved
  from lot
 where original <> remaining + held + pending + spent + expired + returned + moved
    or least(remaining, held, pending, spent, expired, returned, moved) < 0;

-- name: lots_equal_their_takes()
-- What was spent, expired, returned and moved of a lot is traced to the transactions that took it.
select l.lot_id, l.spent, t.spent as spent_in_takes, l.expired, t.expired as expired_in_takes, l.returned,
       t.returned as returned_in_takes, l.moved, t.moved as moved_in_takes
  from lot l
  left join (
    select bucket, lot_id,
           coalesce(sum(points - restored) filter (where effect = 'spent'), 0) as spent,
           coalesce(sum(points) filter (where effect = 'moved'), 0) as moved,
           coalesce(sum(points) filter (where effect = 'expired'), 0) as expired,
           coalesce(sum(points) filter (where effect in ('returned', 'repaid')), 0) as returned
      from lot_take
     group by bucket, lot_id) t on t.bucket = l.bucket and t.lot_id = l.lot_id
 where (l.spent, l.expired, l.returned, l.moved)
       <> (coalesce(t.spent, 0), coalesce(t.expired, 0), coalesce(t.returned, 0), coalesce(t.moved, 0));

-- name: takes_equal_their_entries()
-- What a redemption, conversion, expiry, transfer or adjustment took from lots is what its entries took from the wallet.
select e.transaction_id, e.kind, e.points, t.points as taken
  from (select bucket, transaction_id, kind, -sum(points) as points
          from entry
         where kind in ('redemption', 'expiry') or (kind = 'conversion' and account = 'exchange' and points < 0)
            or (kind in ('transfer', 'adjustment') and points < 0)
         group by bucket, transaction_id, kind) e
  left join (
    select bucket, transaction_id, sum(points) as points
      from lot_take
     where effect in ('spent', 'expired', 'moved')
     group by bucket, transaction_id) t on t.bucket = e.bucket and t.transaction_id = e.transaction_id
 where e.points <> coalesce(t.points, 0);

-- name: returns_are_taken_back_or_owed()
-- A return's points are what came back from lots and what became owed.
select r.transaction_id, r.points, r.owed, coalesce(t.points, 0) as taken
  from purchase_return r
  left join (
    select bucket, transaction_id, sum(points) as points
      from lot_take
     where effect = 'returned'
     group by bucket, transaction_id) t on t.bucket = r.bucket and t.transaction_id = r.transaction_id
 where r.points <> r.owed + coalesce(t.points, 0);

-- name: debt_equals_what_was_not_repaid()
-- What a member owes is what returns could not take back, less what later earnings repaid.
select coalesce(w.member_id, d.member_id) as member, w.owed, d.owed as owed_by_returns
  from wallet w
  full join (
    select bucket, member_id, programme_id, sum(owed) as owed
      from (
        select p.bucket, p.member_id, p.programme_id, r.owed
          from purchase_return r
          join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
        union all
        select l.bucket, l.member_id, l.programme_id, -t.points
          from lot_take t
          join lot l on l.bucket = t.bucket and l.lot_id = t.lot_id
         where t.effect = 'repaid') m
     group by bucket, member_id, programme_id) d
    on d.bucket = w.bucket and d.member_id = w.member_id and d.programme_id = w.programme_id
 where coalesce(w.owed, 0) <> coalesce(d.owed, 0);

-- name: returns_stay_within_purchases()
-- Every return is of a purchase, and what came back of one is never more than it was.
select r.purchase_id, p.amount_minor, r.amount_minor as returned_minor, p.points, r.points as returned_points
  from (
    select bucket, purchase_id, sum(amount_minor) as amount_minor, sum(points) as points
      from purchase_return
     group by bucket, purchase_id) r
  left join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
 where p.transaction_id is null
    or r.amount_minor > p.amount_minor
    or r.points > p.points;

-- name: lots_equal_what_came_in()
-- What a lot brought is what its purchases, adjustments and transfers brought: each of its funder, contract and last day.
select coalesce(l.member_id, b.member_id) as member, coalesce(l.funder_id, b.funder_id) as funder,
       coalesce(l.expires_on, b.expires_on) as expires_on, l.original, b.points
  from lot l
  full join (
    select bucket, member_id, programme_id, funder_id, contract_id, expires_on, sum(points) as points
      from (
        select bucket, member_id, programme_id, partner_id as funder_id, contract_id, expires_on, points
          from purchase
         where points > 0
        union all
        select bucket, member_id, programme_id, partner_id, contract_id, expires_on, points
          from adjustment
         where state = 'posted' and points > 0
        union all
        select f.bucket, t.member_id, f.programme_id, o.funder_id, o.contract_id, o.expires_on, k.points
          from transfer f
          join transaction t on t.bucket = f.bucket and t.transaction_id = f.transaction_id
          join lot_take k on k.transaction_id = f.other_transaction_id and k.effect = 'moved'
          join lot o on o.bucket = k.bucket and o.lot_id = k.lot_id
         where f.direction = 'in') c
     group by bucket, member_id, programme_id, funder_id, contract_id, expires_on) b
    on (b.bucket, b.member_id, b.programme_id, b.funder_id, b.contract_id, b.expires_on)
       = (l.bucket, l.member_id, l.programme_id, l.funder_id, l.contract_id, l.expires_on)
 where coalesce(l.original, 0) <> coalesce(b.points, 0);

-- name: nobody_is_below_zero()
-- No wallet is below zero.
select member_id, programme_id, available, pending, held, owed
  from wallet
 where least(available, pending, held, owed) < 0;

-- name: deltas_equal_entries()
-- What settlement reads is what the entries add up to, by period, kind, account, partner and contract.
select coalesce(d.period, e.period) as period, coalesce(d.kind, e.kind) as kind,
       coalesce(d.account, e.account) as account, coalesce(d.partner_id, e.partner_id) as partner,
       d.points, e.points as in_entries
  from (select period, kind, programme_id, account, partner_id, contract_id, sum(points) as points
          from delta group by 1, 2, 3, 4, 5, 6) d
  full join (
        select period, kind, programme_id, account, partner_id, contract_id, sum(points) as points
          from entry group by 1, 2, 3, 4, 5, 6) e
    on (e.period, e.kind, e.programme_id, e.account, e.partner_id, e.contract_id)
       = (d.period, d.kind, d.programme_id, d.account, d.partner_id, d.contract_id)
 where coalesce(d.points, 0) <> coalesce(e.points, 0);

-- name: deltas_equal_purchases()
-- What settlement reads of purchases and returns, counts and amounts, is what was recorded.
select coalesce(d.period, p.period) as period, coalesce(d.kind, p.kind) as kind, d.transactions, p.transactions as recorded,
       d.amount_minor, p.amount_minor as recorded_minor
  from (select period, kind, sum(transactions) as transactions, sum(amount_minor) as amount_minor
          from delta where kind in ('earning', 'return') group by 1, 2) d
  full join (
        select t.period, t.kind, count(*) as transactions, sum(coalesce(t.amount_minor, r.amount_minor)) as amount_minor
          from transaction t
          left join purchase_return r on r.bucket = t.bucket and r.transaction_id = t.transaction_id
         where t.kind in ('earning', 'return')
         group by 1, 2) p on (p.period, p.kind) = (d.period, d.kind)
 where (coalesce(d.transactions, 0), coalesce(d.amount_minor, 0)) <> (coalesce(p.transactions, 0), coalesce(p.amount_minor, 0));

-- name: entries_belong_to_their_transactions()
-- Every entry belongs to a transaction of the same member, kind and period, every period exists, and a purchase, like any
-- transaction that carries its entry, has no other.
select e.transaction_id, e.ordinal, e.period
  from entry e
  left join transaction t on t.bucket = e.bucket and t.transaction_id = e.transaction_id
  left join period p on p.month = e.period
 where t.transaction_id is null
    or p.month is null
    or (t.member_id, t.kind, t.period) <> (e.member_id, e.kind, e.period)
union all
select f.transaction_id, f.ordinal, f.period
  from further_entry f
  join transaction t on t.bucket = f.bucket and t.transaction_id = f.transaction_id
 where t.points is not null or t.kind = 'earning';

-- name: transactions_are_complete()
-- Every transaction has what it is about: a return, a redemption and so on, or entries that expired. A purchase is one.
select t.transaction_id, t.kind
  from transaction t
  left join purchase_return r on r.bucket = t.bucket and r.transaction_id = t.transaction_id
  left join redemption d on d.bucket = t.bucket and d.transaction_id = t.transaction_id
  left join conversion c on c.bucket = t.bucket and c.conversion_id = t.transaction_id and c.state = 'completed'
 where case t.kind
         when 'return' then r.transaction_id is null
         when 'redemption' then d.transaction_id is null
         when 'conversion' then c.conversion_id is null
         when 'reversal' then not exists (
           select from reversal v where v.bucket = t.bucket and v.transaction_id = t.transaction_id)
         when 'transfer' then not exists (
           select from transfer f where f.bucket = t.bucket and f.transaction_id = t.transaction_id)
         when 'adjustment' then not exists (
           select from adjustment a where a.bucket = t.bucket and a.adjustment_id = t.transaction_id and a.state = 'posted')
         when 'expiry' then not exists (
           select from entry e where e.bucket = t.bucket and e.transaction_id = t.transaction_id)
       end;

-- name: conversions_follow_their_quotes()
-- A completed conversion took and gave what its quote said, which is the rate rounded down, and nothing else did.
select c.conversion_id, c.state, c.take, c.give
  from conversion c
  join quote q on q.bucket = c.bucket and q.quote_id = c.quote_id
  join conversion_rate r on r.rate_id = q.rate_id
  left join (
    select bucket, transaction_id,
           sum(points) filter (where account = 'exchange' and points < 0) as taken,
           sum(points) filter (where account = 'exchange' and points > 0) as given,
           sum(points) filter (where account = 'custody') as in_custody
      from entry where kind = 'conversion' group by bucket, transaction_id) e
    on e.bucket = c.bucket and e.transaction_id = c.conversion_id
 where (c.take, c.give) <> (q.take, q.give)
    or q.give <> q.take * r.give / r.take
    or (c.state = 'completed' and (e.taken, e.given, e.in_custody) is distinct from (-c.take, c.give, -c.give))
    or (c.state <> 'completed' and e.transaction_id is not null);

-- name: holds_are_resolved_once()
-- An order that is held or credited has an open hold, a completed one a captured hold, a released or refused one none.
select c.conversion_id, c.state, h.state as hold
  from conversion c
  join hold h on h.bucket = c.bucket and h.hold_id = c.hold_id
 where h.state <> case c.state when 'completed' then 'captured' when 'released' then 'released' when 'refused' then 'released'
                        else 'open' end;

-- name: receipts_are_posted_once()
-- No receipt of a partner has two purchases.
select partner_id, receipt, count(*) as purchases
  from purchase
 group by partner_id, receipt
having count(*) > 1;

-- name: answers_name_transactions()
-- Every accepted key names a transaction, a hold or a conversion that is there.
select k.owner_id, k.key, k.transaction_id
  from idempotency k
  left join transaction t on t.bucket = k.bucket and t.transaction_id = k.transaction_id
  left join hold h on h.bucket = k.bucket and h.hold_id = k.transaction_id
  left join conversion c on c.bucket = k.bucket and c.conversion_id = k.transaction_id
 where k.transaction_id is not null
   and t.transaction_id is null
   and h.hold_id is null
   and c.conversion_id is null;

-- name: what_was_posted_answers_a_key()
-- Every purchase, return and redemption is the answer to a key that was accepted.
select t.transaction_id, t.kind
  from transaction t
  left join idempotency k on k.bucket = t.bucket and k.transaction_id = t.transaction_id
 where t.kind in ('earning', 'return', 'redemption')
   and k.transaction_id is null;

-- name: redemptions_equal_their_entries()
-- A redemption is of the partner and the membership of its transaction, and took what its entries took.
select r.transaction_id, r.points, e.points as in_entries
  from redemption r
  join transaction t on t.bucket = r.bucket and t.transaction_id = r.transaction_id
  left join (
    select bucket, transaction_id, programme_id, -sum(points) as points
      from entry
     where kind = 'redemption'
     group by bucket, transaction_id, programme_id) e on e.bucket = r.bucket and e.transaction_id = r.transaction_id
 where (r.points, r.programme_id, r.partner_id, r.membership_id)
       is distinct from (e.points, e.programme_id, t.partner_id, t.membership_id);

-- name: captures_equal_their_redemptions()
-- What was captured of a hold is what its redemptions took, or, of an order's hold, its conversion.
select h.hold_id, h.captured, r.points as redeemed, c.take as converted
  from hold h
  left join (
    select bucket, hold_id, sum(points) as points
      from redemption
     group by bucket, hold_id) r on r.bucket = h.bucket and r.hold_id = h.hold_id
  left join conversion c on c.bucket = h.bucket and c.hold_id = h.hold_id
 where h.captured <> case when h.membership_id is not null then coalesce(r.points, 0)
                          when h.state = 'captured' then coalesce(c.take, 0) else 0 end;

-- name: transfers_equal_their_entries()
-- Each half of a transfer is what its entries moved.
select f.transaction_id, f.points, e.points as in_entries
  from transfer f
  left join (
    select bucket, transaction_id, sum(points) as points
      from entry
     where kind = 'transfer'
     group by bucket, transaction_id) e on e.bucket = f.bucket and e.transaction_id = f.transaction_id
 where case f.direction when 'in' then f.points else -f.points end is distinct from e.points;

-- name: reversals_stay_within_redemptions()
-- What was given back of a redemption is what its reversals and its lots say, and never more than it took.
select r.transaction_id, r.points, r.restored
  from redemption r
  left join (select bucket, redemption_id, sum(points) as points from reversal group by 1, 2) v
    on v.bucket = r.bucket and v.redemption_id = r.transaction_id
  left join (select bucket, transaction_id, sum(restored) as restored from lot_take group by 1, 2) t
    on t.bucket = r.bucket and t.transaction_id = r.transaction_id
 where r.restored > r.points
    or (r.restored, r.restored) <> (coalesce(v.points, 0), coalesce(t.restored, 0));

-- name: transfers_arrive()
-- What leaves one member arrives at the other: both halves are there, and nothing stays in transit.
select f.transaction_id, f.points, o.points as other_half
  from transfer f
  left join transfer o on o.transaction_id = f.other_transaction_id and o.other_transaction_id = f.transaction_id
 where o.transaction_id is null
    or o.points <> f.points
    or o.direction = f.direction
union all
select programme_id, sum(points), 0
  from entry
 where account = 'transit'
 group by programme_id
having sum(points) <> 0;

-- name: adjustments_were_decided()
-- A posted adjustment has its entry, one that waits or was rejected has none, and nobody decided on their own above
-- the limit: who approved is not who asked.
select a.adjustment_id, a.state, a.points, e.points as entered
  from adjustment a
  left join entry e on e.bucket = a.bucket and e.transaction_id = a.adjustment_id
 where (a.state = 'posted' and e.points is distinct from a.points)
    or (a.state <> 'posted' and e.points is not null)
    or a.decided_by = a.requested_by;

-- name: what_runs_out_is_looked_for()
-- Expiry will find every lot that has something left and a last day.
select l.lot_id, l.expires_on, l.remaining
  from lot l
  left join expiry_due d
    on d.programme_id = l.programme_id and d.expires_on = l.expires_on and d.bucket = l.bucket and d.member_id = l.member_id
 where l.remaining > 0
   and l.expires_on < 'infinity'
   and d.member_id is null;

-- name: everything_is_announced()
-- Every transaction is in the outbox, once.
select t.transaction_id, t.kind, count(o.id) as times
  from transaction t
  left join (select unnest(transactions) as id from outbox where kind not in ('hold', 'release', 'hold_expired', 'matured')) o
    on o.id = t.transaction_id
 group by t.transaction_id, t.kind
having count(o.id) <> 1;

-- name: buckets_are_the_members_own()
-- What belongs to a member lies in the bucket that the member's id ends in.
select member_id, bucket
  from member
 where bucket <> get_byte(uuid_send(member_id), 15)
union all
select member_id, bucket
  from wallet
 where bucket <> get_byte(uuid_send(member_id), 15);

-- name: statements_equal_the_sums()
-- A closed month's statements are what its sums come to: nothing was posted into it afterwards.
select s.period, s.partner_id, s.issued, d.issued as issued_now, s.returned, d.returned as returned_now, s.redeemed,
       d.redeemed as redeemed_now, s.converted_in, d.converted_in as converted_in_now
  from statement s
  left join (
    select period, partner_id,
           coalesce(sum(points) filter (where kind = 'earning'), 0) as issued,
           coalesce(-sum(points) filter (where kind = 'return'), 0) as returned,
           coalesce(-sum(points) filter (where kind = 'redemption'), 0) as redeemed,
           coalesce(-sum(points) filter (where kind = 'conversion' and account = 'custody'), 0) as converted_in
      from delta
     group by period, partner_id) d on d.period = s.period and d.partner_id = s.partner_id
 where (s.issued, s.returned, s.redeemed, s.converted_in)
       <> (coalesce(d.issued, 0), coalesce(d.returned, 0), coalesce(d.redeemed, 0), coalesce(d.converted_in, 0));

-- name: lines_follow_their_prices()
-- Each line is its points at the contract's price, rounded once, half-even, to the cent; lines of a statement add up
-- to its net.
select l.line_id, l.kind, l.points, l.gross_minor, x.exact
  from statement_line l
  join contract c on c.contract_id = l.contract_id
 cross join lateral (
    select abs(l.points) * 100 * case l.kind
             when 'issue' then c.issue_price
             when 'return' then c.issue_price
             when 'redeem' then c.redeem_price
             when 'reversal' then c.redeem_price
             when 'conversion' then c.conversion_price
             else c.issue_price * c.service_fee end as exact) x
 where abs(l.gross_minor - x.exact) > 0.5
    or (abs(l.gross_minor - x.exact) = 0.5 and l.gross_minor % 2 <> 0)
union all
select s.statement_id, 'net', 0, s.net_minor,
       coalesce(sum(case when l.debtor_id = s.partner_id then l.gross_minor else -l.gross_minor end), 0)
  from statement s
  left join statement_line l on l.statement_id = s.statement_id
 group by s.statement_id, s.net_minor
having s.net_minor <> coalesce(sum(case when l.debtor_id = s.partner_id then l.gross_minor else -l.gross_minor end), 0);

-- name: audit_log_is_chained()
-- Each entry of the audit log has the hash of itself and the one before it, without a gap, up to the head.
with chained as (
  select l.number, l.hash,
         audit_hash(coalesce(lag(l.hash) over (order by l.number), '\x'), l.number, l.at, l.actor_kind, l.actor_id, l.client_id,
                    l.token_id, l.action, l.result, l.about, l.sealed) as expected,
         coalesce(lag(l.number) over (order by l.number), 0) as before
    from audit_log l)
select c.number as entry
  from chained c
 where c.hash <> c.expected or c.number <> c.before + 1
 union all
select h.number
  from audit_head h
 where h.number <> coalesce((select max(l.number) from audit_log l), 0)
    or h.hash <> coalesce((select l.hash from audit_log l where l.number = h.number), '\x');
