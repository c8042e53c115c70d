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

-- name: transactions_lie_in_the_month_of_their_day()
-- A transaction belongs to the month of its day in the coalition's time zone, or to a later one and says which it missed. What
-- happens by itself in the last moment of a month may be a moment later in the ledger, as the clocks of several gateways differ.
select t.transaction_id, t.occurred_at, t.period, t.missed_period
  from transaction t
 cross join coalition c
 where coalesce(t.missed_period, t.period) not in (
         date_trunc('month', t.occurred_at at time zone c.timezone)::date,
         date_trunc('month', (t.occurred_at - interval '1 minute') at time zone c.timezone)::date)
    or t.missed_period >= t.period;

-- name: memberships_are_the_members_own()
-- The membership that a transaction or a hold names is that of its member with its partner.
select t.transaction_id as id, t.member_id, t.partner_id, t.membership_id
  from transaction t
  left join membership m on m.bucket = t.bucket and m.membership_id = t.membership_id
 where t.membership_id is not null
   and (m.member_id, m.partner_id) is distinct from (t.member_id, t.partner_id)
union all
select h.hold_id, h.member_id, h.partner_id, h.membership_id
  from hold h
  left join membership m on m.bucket = h.bucket and m.membership_id = h.membership_id
 where h.membership_id is not null
   and (m.member_id, m.partner_id) is distinct from (h.member_id, h.partner_id);

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

-- name: everything_is_announced()
-- Every transaction is in the outbox, once.
select t.transaction_id, t.kind, count(o.id) as times
  from transaction t
  left join (select unnest(transactions) as id from outbox where kind not in ('hold', 'release', 'hold_expired', 'matured')) o
    on o.id = t.transaction_id
 group by t.transaction_id, t.kind
having count(o.id) <> 1;

-- name: contracts_are_the_partners_own()
-- Every entry stands under a contract of its partner for its programme, but what a conversion brings in another programme under the
-- one by which points left the first; a return stands under the contract of its purchase.
select e.transaction_id, e.partner_id, e.programme_id, e.contract_id
  from entry e
  left join contract c on c.contract_id = e.contract_id
 where e.contract_id is not null
   and (c.partner_id is distinct from e.partner_id
        or (c.programme_id <> e.programme_id and e.kind <> 'conversion'))
union all
select t.transaction_id, t.partner_id, t.programme_id, t.contract_id
  from purchase_return r
  join transaction t on t.bucket = r.bucket and t.transaction_id = r.transaction_id and t.contract_id is not null
  join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
 where t.contract_id is distinct from p.contract_id;

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

-- name: holds_are_resolved_once()
-- An order that is held or credited has an open hold, a completed one a captured hold, a released or refused one none.
select c.conversion_id, c.state, h.state as hold
  from conversion c
  join hold h on h.bucket = c.bucket and h.hold_id = c.hold_id
 where h.state <> case c.state when 'completed' then 'captured' when 'released' then 'released' when 'refused' then 'released'
                        else 'open' end;

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

-- name: adjustments_were_decided()
-- A posted adjustment has its entry, one that waits or was rejected has none, and nobody decided on their own above
-- the limit: who approved is not who asked.
select a.adjustment_id, a.state, a.points, e.points as entered
  from adjustment a
  left join entry e on e.bucket = a.bucket and e.transaction_id = a.adjustment_id
 where (a.state = 'posted' and e.points is distinct from a.points)
    or (a.state <> 'posted' and e.points is not null)
    or a.decided_by = a.requested_by;

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
