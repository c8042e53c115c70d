-- name: store_quote(bucket, quote_id, member_id, membership_id, rate_id, source_id, target_id, take, give, quoted_at, priced_at, expires_at, owner, key)!
-- Lock a rate for one member.
insert into quote (bucket, quote_id, member_id, membership_id, rate_id, source_id, target_id, take, give, quoted_at,
                   priced_at, expires_at, owner_id, key)
values (:bucket, :quote_id, :member_id, :membership_id, :rate_id, :source_id, :target_id, :take, :give, :quoted_at,
        :priced_at, :expires_at, :owner, :key);

-- name: quote_for_update(bucket, quote_id)^
-- A quote, locked until the order that uses it is stored.
select quote_id, member_id, membership_id, source_id, target_id, take, give, priced_at, expires_at, used
  from quote
 where bucket = :bucket
   and quote_id = :quote_id
   for update;

-- name: quote_by_id(bucket, quote_id)^
-- A quote.
select q.quote_id, q.member_id, q.membership_id, q.rate_id, q.source_id, q.target_id, q.take, q.give, q.priced_at, q.expires_at,
       q.used, r.take as rate_take, r.give as rate_give
  from quote q
  join conversion_rate r on r.rate_id = q.rate_id
 where q.bucket = :bucket
   and q.quote_id = :quote_id;

-- name: use_quote(bucket, quote_id)!
-- One quote serves one conversion.
update quote
   set used = true
 where bucket = :bucket
   and quote_id = :quote_id;

-- name: store_order(bucket, conversion_id, owner_id, key, digest, quote_id, hold_id, member_id, membership_id, partner_id, contract_id, source_id, target_id, take, give, occurred_at, updated_at)!
-- A new order, its points held.
insert into conversion (bucket, conversion_id, owner_id, key, digest, quote_id, hold_id, member_id, membership_id,
                        partner_id, contract_id, source_id, target_id, take, give, state, occurred_at, updated_at)
values (:bucket, :conversion_id, :owner_id, :key, :digest, :quote_id, :hold_id, :member_id, :membership_id,
        :partner_id, :contract_id, :source_id, :target_id, :take, :give, 'held', :occurred_at, :updated_at);

-- name: order_by_key(owner_id, key)^
-- The order that a key asked for.
select c.bucket, c.conversion_id, c.digest, c.hold_id, c.member_id, c.membership_id, c.partner_id, c.source_id,
       c.target_id, c.take, c.give, c.state, c.partner_reference, c.occurred_at,
       c.in_doubt, c.asking_until
  from conversion c
 where c.owner_id = :owner_id
   and c.key = :key;

-- name: order_by_id(bucket, conversion_id)^
-- One order.
select c.bucket, c.conversion_id, c.digest, c.hold_id, c.member_id, c.membership_id, c.partner_id, c.source_id,
       c.target_id, c.take, c.give, c.state, c.partner_reference, c.occurred_at,
       c.in_doubt, c.asking_until
  from conversion c
 where c.bucket = :bucket
   and c.conversion_id = :conversion_id;

-- name: orders_by_id(buckets, conversions)
-- Orders by their ids.
select c.bucket, c.conversion_id, c.digest, c.hold_id, c.member_id, c.membership_id, c.partner_id, c.source_id,
       c.target_id, c.take, c.give, c.state, c.partner_reference, c.occurred_at,
       c.in_doubt, c.asking_until
  from unnest(:buckets::smallint[], :conversions::uuid[]) i (bucket, conversion)
  join conversion c on c.bucket = i.bucket and c.conversion_id = i.conversion;

-- name: orders_under_way(before, most)
-- Orders that nobody has moved on for a while, the oldest `most` of each partner.
select c.bucket, c.conversion_id, c.digest, c.hold_id, c.member_id, c.membership_id, c.partner_id, c.source_id,
       c.target_id, c.take, c.give, c.state, c.partner_reference, c.occurred_at,
       c.in_doubt, c.asking_until
  from partner p
 cross join lateral (select u.bucket, u.conversion_id, u.digest, u.hold_id, u.member_id, u.membership_id, u.partner_id,
                            u.source_id, u.target_id, u.take, u.give, u.state, u.partner_reference, u.occurred_at, u.in_doubt,
                            u.asking_until, u.updated_at
                       from conversion u
                      where u.partner_id = p.partner_id
                        and u.state in ('held', 'credited')
                        and u.updated_at < :before
                      order by u.updated_at
                      limit :most) c
 order by c.updated_at;

-- name: order_for_update(bucket, conversion_id)^
-- An order's state, locked.
select state, hold_id, in_doubt, asking_until
  from conversion
 where bucket = :bucket
   and conversion_id = :conversion_id
   for update;

-- name: begin_asking(bucket, conversion_id, asking_until)!
-- From here on the partner may have credited; nobody else asks until then.
update conversion
   set in_doubt = true,
       asking_until = :asking_until
 where bucket = :bucket
   and conversion_id = :conversion_id;

-- name: move_order(bucket, conversion_id, state, in_doubt, reference, updated_at)!
-- Store the next state of an order.
update conversion
   set state = :state,
       in_doubt = :in_doubt,
       asking_until = null,
       partner_reference = coalesce(:reference::text, partner_reference),
       updated_at = :updated_at
 where bucket = :bucket
   and conversion_id = :conversion_id;

-- name: look_later(bucket, conversion_id, updated_at)!
-- An order that could not be moved on comes after the others.
update conversion
   set updated_at = :updated_at
 where bucket = :bucket
   and conversion_id = :conversion_id
   and state in ('held', 'credited');

-- name: hold_again(bucket, conversion_id, hold_id, updated_at)!
-- A released order that is asked for again gets a new hold.
update conversion
   set state = 'held',
       hold_id = :hold_id,
       in_doubt = false,
       updated_at = :updated_at
 where bucket = :bucket
   and conversion_id = :conversion_id;

-- name: place_hold(at, owner, key, digest, conversion, bucket, hold, member, programme, partner, day, today, points)$
-- Set the points of an order aside and take its key; answers 'post' or a refusal.
select place_hold(:at, :owner, :key, :digest, :conversion, :bucket, :hold, :member, :programme, :partner, :day, :today,
                  :points);

-- name: keep_refusal(at, owner, key, digest, bucket, refusal)$
-- What the ledger refused is the answer to this key.
select keep_refusal(:at, :owner, :key, :digest, :bucket, :refusal);

-- name: release_hold(at, bucket, hold, today, month)$
-- Give the points of an order back; false when its hold is no longer open.
select release_hold(:at, :bucket, :hold, :today, :month);

-- name: post_conversion(at, bucket, conversion, occurred, month)$
-- Capture the hold of a credited order and post both legs.
select post_conversion(:at, :bucket, :conversion, :occurred, :month);

-- name: quote_by_key(owner, key)^
-- The quote that a key got before.
select q.quote_id, q.member_id, q.membership_id, q.rate_id, q.source_id, q.target_id, q.take, q.give, q.priced_at, q.expires_at,
       q.used, r.take as rate_take, r.give as rate_give, q.quoted_at
  from quote q
  join conversion_rate r on r.rate_id = q.rate_id
 where q.owner_id = :owner
   and q.key = :key;

-- name: store_rate(rate_id, source_id, target_id, take, give, minimum, increment, valid_from)$
-- Publish a conversion rate; answers null when one with that very beginning exists.
insert into conversion_rate (rate_id, source_id, target_id, take, give, minimum, increment, valid_from)
values (:rate_id, :source_id, :target_id, :take, :give, :minimum, :increment, :valid_from)
on conflict (source_id, target_id, valid_from) do nothing
returning rate_id;
