-- name: wallets_of_members(as_partner, as_member, buckets, members)
-- Every wallet of the given members, as a partner or a member may see it.
select member_id, programme_id, available, pending, held, owed
  from read_wallets(:as_partner, :as_member, :buckets::smallint[], :members::uuid[]);

-- name: expiring(bucket, member, programme, before)
-- What is left in a wallet's lots that run out before a day, a row a day.
select expires_on, sum(remaining)::bigint as points
  from lot
 where bucket = :bucket
   and member_id = :member
   and programme_id = :programme
   and remaining > 0
   and expires_on < :before
 group by expires_on
 order by expires_on;

-- name: wallet_at(bucket, member, programme, at)^
-- A wallet as it stood at a moment of the ledger's time, from the journal alone: entries for the balance; holds, what
-- was captured of them and when they ended for what was held; purchases that had not matured for what was pending;
-- returns and what repaid them for what was owed. Further entries are asked for one transaction at a time: how many there are is
-- guessed wrongly for as long as they are too few to be analyzed.
with posted as materialized (
  select t.transaction_id, t.programme_id, t.points
    from transaction t
   where t.bucket = :bucket and t.member_id = :member and t.posted_at <= :at
),
held as materialized (
  select h.hold_id, h.points, h.programme_id, h.placed_at, h.resolved_at
    from hold h
   where h.bucket = :bucket and h.member_id = :member
),
returned as materialized (
  select v.purchase_id, v.points, v.owed
    from posted p
    join purchase_return v on v.bucket = :bucket and v.transaction_id = p.transaction_id
)
select (coalesce((select sum(p.points) from posted p where p.programme_id = :programme), 0)
        + coalesce((select sum(f.points)
                      from posted p
                     cross join lateral (
                       select sum(e.points) as points
                         from further_entry e
                        where e.bucket = :bucket and e.transaction_id = p.transaction_id and e.programme_id = :programme) f),
                   0))::bigint as points,
       coalesce((select sum(h.points - coalesce(c.captured, 0))
                   from held h
                   left join (
                     select r.hold_id, sum(r.points) as captured
                       from posted p
                       join redemption r on r.bucket = :bucket and r.transaction_id = p.transaction_id
                      group by r.hold_id) c on c.hold_id = h.hold_id
                  where h.programme_id = :programme
                    and h.placed_at <= :at and (h.resolved_at is null or h.resolved_at > :at)), 0)::bigint as held,
       coalesce((select sum(m.points - least(coalesce(r.points, 0), m.points))
                   from posted p
                   join maturing m on m.bucket = :bucket and m.transaction_id = p.transaction_id
                   left join (
                     select purchase_id, sum(points) as points
                       from returned
                      group by purchase_id) r on r.purchase_id = m.transaction_id
                  where m.programme_id = :programme
                    and (m.matured_at is null or m.matured_at > :at)), 0)::bigint as pending,
       (coalesce((select sum(r.owed)
                    from returned r
                    join purchase b on b.bucket = :bucket and b.transaction_id = r.purchase_id
                   where b.programme_id = :programme), 0)
        - coalesce((select sum(k.points)
                      from (
                        select p.transaction_id as id
                          from posted p
                          left join maturing m on m.bucket = :bucket and m.transaction_id = p.transaction_id
                         where m.transaction_id is null or m.matured_at <= :at
                        union all
                        select h.hold_id from held h where h.resolved_at <= :at) s
                      join lot_take k on k.bucket = :bucket and k.transaction_id = s.id and k.effect = 'repaid'
                      join lot l on l.bucket = k.bucket and l.lot_id = k.lot_id
                     where l.programme_id = :programme), 0))::bigint as owed;

-- name: history(bucket, member, programme, before_at, before_id, most)
-- A wallet's entries, a row a transaction, the latest posted first, each with the balance after it.
select s.transaction_id, s.kind, s.points, s.balance, s.occurred_at, s.posted_at
  from (select t.transaction_id, t.kind, t.occurred_at, t.posted_at, e.points,
               (sum(e.points) over (order by t.posted_at, t.transaction_id))::bigint as balance
          from transaction t
          join lateral (
            select sum(n.points)::bigint as points
              from entry n
             where n.bucket = t.bucket and n.transaction_id = t.transaction_id and n.programme_id = :programme) e
            on e.points is not null
         where t.bucket = :bucket
           and t.member_id = :member) s
 where (s.posted_at, s.transaction_id) < (:before_at::timestamptz, :before_id::uuid)
 order by s.posted_at desc, s.transaction_id desc
 limit :most;

-- name: takes(bucket, transaction)
-- Which lots a transaction took from: its trace to their funders.
select t.lot_id, t.effect, t.points, l.funder_id, l.contract_id, l.expires_on
  from lot_take t
  join lot l on l.bucket = t.bucket and l.lot_id = t.lot_id
 where t.bucket = :bucket
   and t.transaction_id = :transaction
   and t.effect <> 'repaid'
 order by l.expires_on, l.funder_id, l.contract_id, t.effect;

-- name: credits_of_lot(bucket, lot)
-- What brought points into a lot, in the order of posting: purchases, adjustments, and transfers from others.
select t.transaction_id, t.kind, p.receipt, t.partner_id, t.occurred_at,
       coalesce(p.points, a.points, m.points)::bigint as points
  from lot l
  join transaction t on t.bucket = l.bucket and t.member_id = l.member_id and t.kind in ('earning', 'adjustment', 'transfer')
  left join purchase p
    on p.bucket = t.bucket and p.transaction_id = t.transaction_id and p.programme_id = l.programme_id
   and p.partner_id = l.funder_id and p.contract_id = l.contract_id and p.expires_on = l.expires_on and p.points > 0
  left join adjustment a
    on a.bucket = t.bucket and a.adjustment_id = t.transaction_id and a.programme_id = l.programme_id
   and a.partner_id = l.funder_id and a.contract_id = l.contract_id and a.expires_on = l.expires_on and a.points > 0
  left join transfer f on f.bucket = t.bucket and f.transaction_id = t.transaction_id and f.direction = 'in'
  left join lateral (
    select sum(k.points) as points
      from lot_take k
      join lot o on o.bucket = k.bucket and o.lot_id = k.lot_id
     where k.bucket = get_byte(uuid_send(f.other_member_id), 15) and k.transaction_id = f.other_transaction_id
       and k.effect = 'moved' and o.programme_id = l.programme_id and o.funder_id = l.funder_id
       and o.contract_id = l.contract_id and o.expires_on = l.expires_on) m on f.transaction_id is not null
 where l.bucket = :bucket
   and l.lot_id = :lot
   and coalesce(p.points, a.points, m.points) is not null
 order by t.posted_at, t.transaction_id;

-- name: lot_before_transfer(bucket, lot, transaction)^
-- Out of which lot of the giver a transfer brought points into a lot, and the giver's half of it.
select o.lot_id, f.other_transaction_id
  from lot l
  join transfer f on f.bucket = l.bucket and f.transaction_id = :transaction
  join lot o
    on o.bucket = get_byte(uuid_send(f.other_member_id), 15) and o.member_id = f.other_member_id
   and o.programme_id = l.programme_id and o.funder_id = l.funder_id and o.contract_id = l.contract_id
   and o.expires_on = l.expires_on
 where l.bucket = :bucket
   and l.lot_id = :lot;

-- name: takes_of_lot(bucket, lot)
-- What took points out of a lot and kept them, in the order of posting; a return names the purchase it is of. Takes are asked for
-- one transaction at a time, as in wallet_at.
select k.transaction_id, t.kind, r.purchase_id, (k.points - k.restored)::bigint as kept, k.points
  from lot l
 cross join lateral (
    select p.transaction_id, p.kind, p.posted_at
      from transaction p
     where p.bucket = l.bucket and p.member_id = l.member_id
    union all
    select h.hold_id, null, h.resolved_at
      from hold h
     where h.bucket = l.bucket and h.member_id = l.member_id) t
 cross join lateral (
    select n.transaction_id, n.points, n.restored
      from lot_take n
     where n.bucket = l.bucket and n.transaction_id = t.transaction_id and n.lot_id = l.lot_id
    offset 0) k
  left join purchase_return r on r.bucket = l.bucket and r.transaction_id = k.transaction_id
 where l.bucket = :bucket
   and l.lot_id = :lot
 order by t.posted_at, k.transaction_id;
