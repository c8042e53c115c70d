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

-- name: nobody_is_below_zero()
-- No wallet is below zero.
select member_id, programme_id, available, pending, held, owed
  from wallet
 where least(available, pending, held, owed) < 0;

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

-- name: lots_add_up()
-- What a lot brought is what is left, held, pending, spent, expired, returned and moved, and none of it is below zero.
select lot_id, original, remaining, held, pending, spent, expired, returned, moved
  from lot
 where original <> remaining + held + pending + spent + expired + returned + moved
    or least(remaining, held, pending, spent, expired, returned, moved) < 0;

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

-- name: takes_are_of_the_members_own_lots()
-- What a transaction took, and what a hold reserved and its redemptions captured, lay in lots of its own member and
-- programme.
select k.transaction_id as id, k.lot_id, l.member_id as lot_of, coalesce(t.member_id, h.member_id) as taken_by
  from lot_take k
  left join lot l on l.bucket = k.bucket and l.lot_id = k.lot_id
  left join transaction t on t.bucket = k.bucket and t.transaction_id = k.transaction_id
  left join hold h on k.effect = 'repaid' and h.bucket = k.bucket and h.hold_id = k.transaction_id
 where l.member_id is distinct from coalesce(t.member_id, h.member_id)
    or (k.effect <> 'repaid' and not exists (
         select from entry e
          where e.bucket = k.bucket and e.transaction_id = k.transaction_id and e.programme_id = l.programme_id))
union all
select r.hold_id, r.lot_id, l.member_id, h.member_id
  from hold_lot r
  join hold h on h.bucket = r.bucket and h.hold_id = r.hold_id
  left join lot l on l.bucket = r.bucket and l.lot_id = r.lot_id
 where (l.member_id, l.programme_id) is distinct from (h.member_id, h.programme_id)
union all
select r.transaction_id, r.hold_id, h.member_id, t.member_id
  from redemption r
  join transaction t on t.bucket = r.bucket and t.transaction_id = r.transaction_id
  left join hold h on h.bucket = r.bucket and h.hold_id = r.hold_id
 where r.hold_id is not null
   and (h.member_id, h.partner_id, h.programme_id) is distinct from (t.member_id, r.partner_id, r.programme_id);

-- name: what_runs_out_first_is_taken_first()
-- Whatever took points left none behind in a lot that ran out before one it took from. What a lot held then is what is
-- left of it now, less what came in since, and what went out since; for a minute before and after, in which the clocks
-- of several gateways may differ, and for what has no time of its own, the taker is believed.
with taking as materialized (
  select t.transaction_id as id, t.posted_at as at, l.bucket, l.member_id, l.programme_id, max(l.expires_on) as last_day
    from transaction t
    join lot_take k on k.bucket = t.bucket and k.transaction_id = t.transaction_id and k.effect in ('spent', 'moved')
    join lot l on l.bucket = k.bucket and l.lot_id = k.lot_id
    left join redemption r on r.bucket = t.bucket and r.transaction_id = t.transaction_id
   where t.kind in ('redemption', 'transfer', 'adjustment')
     and r.hold_id is null
   group by t.transaction_id, t.posted_at, l.bucket, l.member_id, l.programme_id
  union all
  select h.hold_id, h.placed_at, h.bucket, h.member_id, h.programme_id, max(l.expires_on)
    from hold h
    join hold_lot r on r.bucket = h.bucket and r.hold_id = h.hold_id
    join lot l on l.bucket = r.bucket and l.lot_id = r.lot_id
   group by h.hold_id, h.placed_at, h.bucket, h.member_id, h.programme_id),
flow as materialized (
  select l.bucket, l.lot_id, coalesce(m.matured_at, p.posted_at) as at, p.points - coalesce(m.cancelled, 0) as points
    from purchase p
    join lot l
      on (l.bucket, l.member_id, l.programme_id, l.expires_on, l.funder_id, l.contract_id)
         = (p.bucket, p.member_id, p.programme_id, p.expires_on, p.partner_id, p.contract_id)
    left join maturing m on m.bucket = p.bucket and m.transaction_id = p.transaction_id
   where m.transaction_id is null or m.matured_at is not null
  union all
  select l.bucket, l.lot_id, a.decided_at, a.points
    from adjustment a
    join lot l
      on (l.bucket, l.member_id, l.programme_id, l.expires_on, l.funder_id, l.contract_id)
         = (a.bucket, a.member_id, a.programme_id, a.expires_on, a.partner_id, a.contract_id)
   where a.state = 'posted' and a.points > 0
  union all
  select l.bucket, l.lot_id, t.posted_at, k.points
    from transfer f
    join transaction t on t.bucket = f.bucket and t.transaction_id = f.transaction_id
    join lot_take k on k.transaction_id = f.other_transaction_id and k.effect = 'moved'
    join lot o on o.bucket = k.bucket and o.lot_id = k.lot_id
    join lot l
      on (l.bucket, l.member_id, l.programme_id, l.expires_on, l.funder_id, l.contract_id)
         = (t.bucket, t.member_id, o.programme_id, o.expires_on, o.funder_id, o.contract_id)
   where f.direction = 'in'
  union all
  select k.bucket, k.lot_id, 'infinity', k.restored
    from lot_take k
   where k.restored > 0
  union all
  select r.bucket, r.lot_id, h.resolved_at, r.released
    from hold h
    join hold_lot r on r.bucket = h.bucket and r.hold_id = h.hold_id
   where r.released > 0
  union all
  select r.bucket, r.lot_id, h.placed_at, -r.points
    from hold h
    join hold_lot r on r.bucket = h.bucket and r.hold_id = h.hold_id
  union all
  select k.bucket, k.lot_id, t.posted_at, -k.points
    from lot_take k
    join transaction t on t.bucket = k.bucket and t.transaction_id = k.transaction_id
    left join redemption r on r.bucket = k.bucket and r.transaction_id = k.transaction_id
   where k.effect = 'expired'
      or (k.effect in ('spent', 'moved') and t.kind <> 'conversion' and r.hold_id is null))
select k.id, k.at, k.last_day as took_until, l.lot_id as left_behind, l.expires_on,
       l.remaining - coalesce(sum(f.points), 0) as points
  from taking k
 cross join coalition c
  join lot l
    on l.bucket = k.bucket and l.member_id = k.member_id and l.programme_id = k.programme_id
   and l.expires_on < k.last_day
   and l.expires_on > (k.at at time zone c.timezone)::date
  left join flow f
    on f.bucket = l.bucket and f.lot_id = l.lot_id
   and f.at > k.at - sign(f.points) * interval '1 minute'
 group by k.id, k.at, k.last_day, l.bucket, l.lot_id, l.expires_on, l.remaining
having l.remaining - coalesce(sum(f.points), 0) > 0;

-- name: what_runs_out_is_looked_for()
-- Expiry will find every lot that has something left and a last day.
select l.lot_id, l.expires_on, l.remaining
  from lot l
  left join expiry_due d
    on d.programme_id = l.programme_id and d.expires_on = l.expires_on and d.bucket = l.bucket and d.member_id = l.member_id
 where l.remaining > 0
   and l.expires_on < 'infinity'
   and d.member_id is null;

-- name: buckets_are_the_members_own()
-- What belongs to a member lies in the bucket that the member's id ends in.
select member_id, bucket
  from member
 where bucket <> get_byte(uuid_send(member_id), 15)
union all
select member_id, bucket
  from wallet
 where bucket <> get_byte(uuid_send(member_id), 15);

-- name: every_debt_is_borne()
-- What partners bear of a member's debt is no less than what the member owes.
select w.member_id, w.owed, coalesce(d.borne, 0) as borne
  from wallet w
  left join (
    select bucket, member_id, programme_id, sum(points) as borne
      from debt
     group by bucket, member_id, programme_id) d
    on d.bucket = w.bucket and d.member_id = w.member_id and d.programme_id = w.programme_id
 where w.owed > coalesce(d.borne, 0);

-- name: nobody_bears_more_than_it_overdrew()
-- Where debts lie as they are owed, a partner bears no more of them than its returns claimed beyond what its own lots gave, and of a
-- contract, on credit or not, no more than these returns did not find in its own lots.
with settled as (
  select d.bucket, d.member_id, d.programme_id
    from debt d
    join wallet w on w.bucket = d.bucket and w.member_id = d.member_id and w.programme_id = d.programme_id
   group by d.bucket, d.member_id, d.programme_id
  having not bool_or(d.fresh) and sum(d.points) = min(w.owed)),
claimed as (
  select p.bucket, p.member_id, p.programme_id, p.partner_id, p.contract_id, p.charged, r.points,
         r.points - coalesce((select sum(k.points)
                                from lot_take k
                                join lot l on l.bucket = k.bucket and l.lot_id = k.lot_id
                               where k.bucket = r.bucket and k.transaction_id = r.transaction_id
                                 and l.funder_id = p.partner_id), 0) as overdrawn
    from purchase_return r
    join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
    join settled s on s.bucket = p.bucket and s.member_id = p.member_id and s.programme_id = p.programme_id),
of_partners as (
  select c.bucket, c.member_id, c.programme_id, c.partner_id,
         sum(c.points) - coalesce((select sum(l.returned)
                                     from lot l
                                    where l.bucket = c.bucket and l.member_id = c.member_id
                                      and l.programme_id = c.programme_id and l.funder_id = c.partner_id), 0) as overdrawn
    from claimed c
   group by c.bucket, c.member_id, c.programme_id, c.partner_id),
of_contracts as (
  select bucket, member_id, programme_id, partner_id, contract_id, charged, sum(overdrawn) as overdrawn
    from claimed
   group by bucket, member_id, programme_id, partner_id, contract_id, charged),
borne as (
  select d.bucket, d.member_id, d.programme_id, d.partner_id, d.contract_id, d.charged, d.points,
         sum(d.points) over (partition by d.bucket, d.member_id, d.programme_id, d.partner_id) as in_all
    from debt d
    join settled s on s.bucket = d.bucket and s.member_id = d.member_id and s.programme_id = d.programme_id)
select b.member_id, b.partner_id, b.contract_id, b.points, b.in_all, c.overdrawn, p.overdrawn as overdrawn_in_all
  from borne b
  left join of_contracts c
    on (c.bucket, c.member_id, c.programme_id, c.partner_id, c.contract_id, c.charged)
     = (b.bucket, b.member_id, b.programme_id, b.partner_id, b.contract_id, b.charged)
  left join of_partners p
    on (p.bucket, p.member_id, p.programme_id, p.partner_id) = (b.bucket, b.member_id, b.programme_id, b.partner_id)
 where b.points > coalesce(c.overdrawn, 0)
    or b.in_all > coalesce(p.overdrawn, 0);
