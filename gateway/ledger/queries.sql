-- name: post_earnings(at, owners, keys, digests, buckets, members, memberships, programmes, partners, contracts, transactions, occurred, months, expiries, points, receipts, stores, amounts, currencies, lines, explanations)
-- Post a batch of purchases; one row an item, in order.
select n, transaction_id, refusal, replayed, posting
  from post_earnings(:at, :owners::uuid[], :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[],
                     :memberships::uuid[], :programmes::uuid[], :partners::uuid[], :contracts::uuid[],
                     :transactions::uuid[], :occurred::timestamptz[], :months::date[], :expiries::date[],
                     :points::bigint[], :receipts::text[], :stores::uuid[], :amounts::bigint[], :currencies::text[],
                     :lines::text[], :explanations::text[])
 order by n;

-- name: post_returns(at, owners, keys, digests, buckets, members, programmes, purchases, versions, transactions, occurred, months, days, amounts, points, lines)
-- Post a batch of returns; one row an item, in order.
select n, transaction_id, refusal, replayed, posting
  from post_returns(:at, :owners::uuid[], :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[],
                    :programmes::uuid[], :purchases::uuid[], :versions::int[], :transactions::uuid[],
                    :occurred::timestamptz[], :months::date[], :days::date[], :amounts::bigint[], :points::bigint[],
                    :lines::text[])
 order by n;

-- name: post_redemptions(at, owners, keys, digests, buckets, members, memberships, programmes, partners, contracts, transactions, occurred, months, days, points, refs)
-- Post a batch of redemptions; one row an item, in order.
select n, transaction_id, refusal, replayed, posting
  from post_redemptions(:at, :owners::uuid[], :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[],
                        :memberships::uuid[], :programmes::uuid[], :partners::uuid[], :contracts::uuid[],
                        :transactions::uuid[], :occurred::timestamptz[], :months::date[], :days::date[],
                        :points::bigint[], :refs::text[])
 order by n;

-- name: post_expiries(at, programme, through, occurred, month, most)^
-- Expire what is due in up to `most` wallets.
select wallets, points
  from post_expiries(:at, :programme, :through, :occurred, :month, :most);


-- name: wallets_of_members(buckets, members)
-- Every wallet of the given members.
select w.member_id, w.programme_id, w.available, w.pending, w.held, w.owed
  from unnest(:buckets::smallint[], :members::uuid[]) i (bucket, member)
  join wallet w on w.bucket = i.bucket and w.member_id = i.member
 order by w.member_id, w.programme_id;

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

-- name: activity(bucket, member, partner, before_at, before_id, most)
-- A member's transactions, newest first, from a cursor on; those of one partner where one is named.
select t.transaction_id, t.kind, t.member_id, t.membership_id, t.partner_id, t.occurred_at, t.posted_at, t.period,
       t.missed_period,
       coalesce((select jsonb_agg(jsonb_build_object('programme', e.programme_id, 'points', e.points)
                                  order by e.ordinal)
                   from entry e where e.bucket = t.bucket and e.transaction_id = t.transaction_id), '[]')::text as entries
  from transaction t
 where t.bucket = :bucket
   and t.member_id = :member
   and (:partner::uuid is null or t.partner_id = :partner)
   and (t.occurred_at, t.transaction_id) < (:before_at::timestamptz, :before_id::uuid)
 order by t.occurred_at desc, t.transaction_id desc
 limit :most;

-- name: transaction_by_id(bucket, transaction)^
-- One transaction with the points it moved per programme.
select t.transaction_id, t.kind, t.member_id, t.membership_id, t.partner_id, t.occurred_at, t.posted_at, t.period,
       t.missed_period,
       coalesce((select jsonb_agg(jsonb_build_object('programme', e.programme_id, 'points', e.points)
                                  order by e.ordinal)
                   from entry e where e.bucket = t.bucket and e.transaction_id = t.transaction_id), '[]')::text as entries
  from transaction t
 where t.bucket = :bucket
   and t.transaction_id = :transaction;

-- name: takes(bucket, transaction)
-- Which lots a transaction took from: its trace to their funders.
select t.effect, t.points, l.funder_id, l.contract_id, l.expires_on
  from lot_take t
  join lot l on l.bucket = t.bucket and l.lot_id = t.lot_id
 where t.bucket = :bucket
   and t.transaction_id = :transaction
 order by l.expires_on, l.funder_id, l.contract_id, t.effect;

-- name: kept_answers(owners, keys)
-- The first answers to keys, where there are any.
select k.owner_id, k.key, k.digest, k.transaction_id, k.refusal
  from unnest(:owners::uuid[], :keys::text[]) i (owner, key)
  join idempotency k on k.owner_id = i.owner and k.key = i.key;
