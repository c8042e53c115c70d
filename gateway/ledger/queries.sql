-- name: post_earnings(at, partners, programmes, contracts, currencies, months, expiries, maturities, prices, term, keys, digests, buckets, members, memberships, transactions, occurred, points, receipts, stores, amounts, lines, slot, dealing, careful)^
-- Post a batch of purchases.
select at, answers, firsts, postings
  from post_earnings(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :currencies::text[],
                     :months::date[], :expiries::date[], :maturities::date[], :prices::numeric[], :term::smallint[],
                     :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[], :memberships::uuid[],
                     :transactions::uuid[], :occurred::timestamptz[], :points::bigint[], :receipts::text[],
                     :stores::uuid[], :amounts::bigint[], :lines::text[], :slot::smallint, :dealing::boolean,
                     :careful::boolean);

-- name: post_returns(at, partners, programmes, contracts, prices, months, days, term, keys, digests, buckets, members, transactions, occurred, purchases, versions, amounts, points, lines, slot)^
-- Post a batch of returns.
select at, answers, firsts, postings
  from post_returns(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :prices::numeric[], :months::date[],
                    :days::date[], :term::smallint[], :keys::text[], :digests::bytea[], :buckets::smallint[],
                    :members::uuid[], :transactions::uuid[], :occurred::timestamptz[], :purchases::uuid[],
                    :versions::int[], :amounts::bigint[], :points::bigint[], :lines::text[], :slot::smallint);

-- name: post_redemptions(at, partners, programmes, contracts, months, days, todays, term, keys, digests, buckets, members, memberships, transactions, occurred, points, refs)^
-- Post a batch of redemptions.
select at, answers, firsts, postings
  from post_redemptions(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :months::date[], :days::date[],
                        :todays::date[], :term::smallint[], :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[],
                        :memberships::uuid[], :transactions::uuid[], :occurred::timestamptz[], :points::bigint[],
                        :refs::text[]);

-- name: post_holds(at, partners, programmes, months, days, todays, term, keys, digests, buckets, members, memberships, transactions, points, until, refs)^
-- Post a batch of holds; their ids are the transactions'.
select at, answers, firsts, postings
  from post_holds(:at, :partners::uuid[], :programmes::uuid[], :months::date[], :days::date[], :todays::date[],
                  :term::smallint[], :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[], :memberships::uuid[],
                  :transactions::uuid[], :points::bigint[], :until::timestamptz[], :refs::text[]);

-- name: post_captures(at, partners, programmes, contracts, months, term, keys, digests, buckets, members, transactions, occurred, holds, points, refs)^
-- Post a batch of captures.
select at, answers, firsts, postings
  from post_captures(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :months::date[], :term::smallint[],
                     :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[], :transactions::uuid[],
                     :occurred::timestamptz[], :holds::uuid[], :points::bigint[], :refs::text[]);

-- name: post_reversal(at, owner, key, digest, bucket, redemption, transaction, occurred, month, today, points)^
-- Give points of a redemption back; answers 'post', 'replay' with what was posted first, or a refusal.
select verdict, posted
  from post_reversal(:at, :owner, :key, :digest, :bucket, :redemption, :transaction, :occurred, :month, :today, :points);

-- name: post_release(at, owner, key, digest, bucket, hold, today, month)$
-- Release a hold; answers 'post', 'replay' or a refusal.
select post_release(:at, :owner, :key, :digest, :bucket, :hold, :today, :month);

-- name: post_run_out_holds(at, today, month, most)$
-- Give back what holds whose time is over set aside; answers how many there were.
select post_run_out_holds(:at, :today, :month, :most);

-- name: post_maturities(at, today, most)^
-- Make pending points available whose day has come.
select purchases, points
  from post_maturities(:at, :today, :most);

-- name: post_transfer(at, owner, key, digest, programme, member, transaction, other, other_transaction, occurred, month, day, points, message)^
-- Move points from one member to another; answers 'post', 'replay' with what was posted first, or a refusal.
select verdict, posted
  from post_transfer(:at, :owner, :key, :digest, :programme, :member, :transaction, :other, :other_transaction,
                     :occurred, :month, :day, :points, :message);

-- name: post_adjustment(at, bucket, adjustment, month)$
-- Post an adjustment that is stored; answers 'post' or a refusal.
select post_adjustment(:at, :bucket, :adjustment, :month);

-- name: post_expiries(at, programme, through, occurred, month, most)^
-- Expire what is due in up to `most` wallets.
select wallets, points
  from post_expiries(:at, :programme, :through, :occurred, :month, :most);


-- name: transactions_by_id(buckets, transactions)
-- Transactions with the points they moved, and the programme of the first of these.
select t.transaction_id as id, t.kind, t.member_id, t.partner_id, e.programme_id, coalesce(e.points, 0)::bigint as points,
       t.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join transaction t on t.bucket = i.bucket and t.transaction_id = i.transaction
 cross join lateral (
    select (array_agg(e.programme_id order by e.ordinal))[1] as programme_id, sum(e.points) as points
      from entry e
     where e.bucket = t.bucket and e.transaction_id = t.transaction_id) e;

-- name: kept_answers(owners, keys)
-- The first answers to keys, where there are any.
select k.owner_id, k.key, k.digest, k.transaction_id, k.refusal
  from unnest(:owners::uuid[], :keys::text[]) i (owner, key)
  join idempotency k on k.owner_id = i.owner and k.key = i.key;

-- name: last_block()^
-- The block sealed last.
select height, hash, through_xid::text as through_xid
  from block
 order by height desc
 limit 1;

-- name: sealable_through(after, most, leaves)$
-- Up to which transaction id to seal now: past `after`, whole ids only, and before every one that still runs; no further
-- batch once there are so many leaves.
select max(s.xid)::text
  from (select o.xid, sum(sum(cardinality(o.transactions))) over (order by o.xid) - sum(cardinality(o.transactions)) as before
          from outbox o
         where o.xid > (:after::text)::xid8
           and o.xid < pg_snapshot_xmin(pg_current_snapshot())
           and o.kind not in ('hold', 'release', 'hold_expired', 'matured', 'expiring')
         group by o.xid
         order by o.xid
         limit :most) s
 where s.before < :leaves;

-- name: batches_between(after, through)
-- The transactions of batches, in the order of the ledger. Holds move no points between accounts and are not sealed.
select transactions
  from outbox
 where xid > (:after::text)::xid8
   and xid <= (:through::text)::xid8
   and kind not in ('hold', 'release', 'hold_expired', 'matured', 'expiring')
 order by xid, batch_id;

-- name: sealed_contents(buckets, transactions)
-- What is sealed of transactions: the record and its entries, as canonical JSON.
select s.transaction_id, s.content
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join sealed_contents s on s.bucket = i.bucket and s.transaction_id = i.transaction;

-- name: leaf_hashes(buckets, transactions)$
-- The hashes of transactions' contents as leaves (RFC 6962, section 2.1), in the order asked for.
select array_agg(sha256('\x00'::bytea || convert_to(s.content, 'UTF8')) order by i.n)
  from unnest(:buckets::smallint[], :transactions::uuid[]) with ordinality i (bucket, transaction, n)
  join sealed_contents s on s.bucket = i.bucket and s.transaction_id = i.transaction;

-- name: seal_block(height, previous, root, through, at, hash, key_id, signature, buckets, transactions, leaves)$
-- Keep a block with its leaves; false when this height is sealed already.
select seal_block(:height, :previous, :root, (:through::text)::xid8, :at, :hash, :key_id, :signature, :buckets::smallint[],
                  :transactions::uuid[], :leaves::bytea[]);

-- name: sealed_block(bucket, transaction)^
-- The block that a transaction is in, and its place there.
select b.height, b.previous_hash, b.merkle_root, b.leaves, b.sealed_at, b.hash, b.key_id, b.signature, s.ordinal
  from sealed s
  join block b on b.height = s.height
 where s.bucket = :bucket
   and s.transaction_id = :transaction;

-- name: block_at(height)^
-- One block.
select height, previous_hash, merkle_root, leaves, sealed_at, hash, key_id, signature
  from block
 where height = :height;

-- name: leaves_of_block(height)
-- The leaves of a block, in their order.
select transaction_id, leaf
  from sealed
 where height = :height
 order by ordinal;

-- name: packed_leaves_of_block(height)$
-- The leaves of a block one after the other, for its tree.
select string_agg(leaf, ''::bytea order by ordinal)
  from sealed
 where height = :height;

-- name: unsealed_before_last()$
-- How many transactions that the last block should have covered are in no block.
select count(*)
  from (select unnest(o.transactions) as id
          from outbox o
         where o.xid <= (select max(b.through_xid) from block b)
           and o.kind not in ('hold', 'release', 'hold_expired', 'matured', 'expiring')) t
  left join sealed s on s.bucket = get_byte(uuid_send(t.id), 15) and s.transaction_id = t.id
 where s.transaction_id is null;

-- name: lag_of_sealing()^
-- How many batches wait to be sealed.
select count(*) as batches
  from outbox
 where xid > coalesce((select max(through_xid) from block), '0'::xid8)
   and kind not in ('hold', 'release', 'hold_expired', 'matured', 'expiring');

-- name: post_expiry_notices(at, programme, by_day, most)$
-- Announce what runs out soon; answers how many members were told.
select post_expiry_notices(:at, :programme, :by_day, :most);

-- name: expiry_preview(programme, through, after_day, after_bucket, after_member, most)
-- Who loses what, and when, if nothing is spent before; points that are pending until then count.
select d.member_id, d.expires_on, l.points
  from expiry_due d
 cross join lateral (
    select sum(o.remaining + o.pending)::bigint as points
      from lot o
     where o.bucket = d.bucket and o.member_id = d.member_id and o.programme_id = d.programme_id
       and o.expires_on = d.expires_on) l
 where d.programme_id = :programme
   and d.expires_on <= :through
   and (d.expires_on, d.bucket, d.member_id) > (:after_day::date, :after_bucket::smallint, :after_member::uuid)
   and l.points > 0
 order by d.expires_on, d.bucket, d.member_id
 limit :most;

-- name: fold_deltas()^
-- Add up what batches noted for settlement; answers how many deltas became one with others.
select fold_deltas();
