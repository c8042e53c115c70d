-- name: post_earnings(at, partners, programmes, contracts, currencies, months, expiries, maturities, prices, term, keys, digests, buckets, members, memberships, transactions, occurred, points, receipts, stores, amounts, lines, slot, dealing, known)^
-- Post a batch of purchases.
select answers, firsts, postings
  from post_earnings(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :currencies::text[],
                     :months::date[], :expiries::date[], :maturities::date[], :prices::numeric[], :term::smallint[],
                     :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[], :memberships::uuid[],
                     :transactions::uuid[], :occurred::timestamptz[], :points::bigint[], :receipts::text[],
                     :stores::uuid[], :amounts::bigint[], :lines::text[], :slot::smallint, :dealing::boolean,
                     :known::boolean);

-- name: post_returns(at, partners, programmes, contracts, prices, months, days, term, keys, digests, buckets, members, transactions, occurred, purchases, versions, amounts, points, lines, slot)^
-- Post a batch of returns.
select answers, firsts, postings
  from post_returns(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :prices::numeric[], :months::date[],
                    :days::date[], :term::smallint[], :keys::text[], :digests::bytea[], :buckets::smallint[],
                    :members::uuid[], :transactions::uuid[], :occurred::timestamptz[], :purchases::uuid[],
                    :versions::int[], :amounts::bigint[], :points::bigint[], :lines::text[], :slot::smallint);

-- name: post_redemptions(at, partners, programmes, contracts, months, days, term, keys, digests, buckets, members, memberships, transactions, occurred, points, refs, known)^
-- Post a batch of redemptions.
select answers, firsts, postings
  from post_redemptions(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :months::date[], :days::date[],
                        :term::smallint[], :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[],
                        :memberships::uuid[], :transactions::uuid[], :occurred::timestamptz[], :points::bigint[],
                        :refs::text[], :known::boolean);

-- name: post_holds(at, partners, programmes, months, days, term, keys, digests, buckets, members, memberships, transactions, points, until, refs)^
-- Post a batch of holds; their ids are the transactions'.
select answers, firsts, postings
  from post_holds(:at, :partners::uuid[], :programmes::uuid[], :months::date[], :days::date[], :term::smallint[],
                  :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[], :memberships::uuid[],
                  :transactions::uuid[], :points::bigint[], :until::timestamptz[], :refs::text[]);

-- name: post_captures(at, partners, programmes, contracts, months, term, keys, digests, buckets, members, transactions, occurred, holds, points, refs)^
-- Post a batch of captures.
select answers, firsts, postings
  from post_captures(:at, :partners::uuid[], :programmes::uuid[], :contracts::uuid[], :months::date[], :term::smallint[],
                     :keys::text[], :digests::bytea[], :buckets::smallint[], :members::uuid[], :transactions::uuid[],
                     :occurred::timestamptz[], :holds::uuid[], :points::bigint[], :refs::text[]);

-- name: post_reversal(at, owner, key, digest, bucket, redemption, transaction, occurred, month, day, points)^
-- Give points of a redemption back; answers 'post', 'replay' with what was posted first, or a refusal.
select verdict, posted
  from post_reversal(:at, :owner, :key, :digest, :bucket, :redemption, :transaction, :occurred, :month, :day, :points);

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
-- Move points from one member to another.
select verdict, posting
  from post_transfer(:at, :owner, :key, :digest, :programme, :member, :transaction, :other, :other_transaction,
                     :occurred, :month, :day, :points, :message);

-- name: post_adjustment(at, bucket, adjustment, month)$
-- Post an adjustment that is stored; answers 'post' or a refusal.
select post_adjustment(:at, :bucket, :adjustment, :month);

-- name: post_expiries(at, programme, through, occurred, month, most)^
-- Expire what is due in up to `most` wallets.
select wallets, points
  from post_expiries(:at, :programme, :through, :occurred, :month, :most);


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

-- name: kept_answers(owners, keys)
-- The first answers to keys, where there are any.
select k.owner_id, k.key, k.digest, k.transaction_id, k.refusal
  from unnest(:owners::uuid[], :keys::text[]) i (owner, key)
  join idempotency k on k.owner_id = i.owner and k.key = i.key;
