-- name: adjustment_by_key(owner, key)^
-- The adjustment that a key asked for.
select adjustment_id, digest, points, refusal
  from adjustment
 where owner_id = :owner
   and key = :key;

-- name: lock_operator(operator)!
-- One adjustment of an operator after the other, so that what it does alone can be summed.
select
  from account
 where account_id = :operator
   for no key update;

-- name: adjusted_alone(operator, direction, since)$
-- How many points an operator has given (1) or taken (-1) since a moment without anybody else.
select coalesce(sum(abs(points)), 0)::bigint
  from adjustment
 where owner_id = :operator
   and state = 'posted'
   and decided_by is null
   and sign(points) = :direction
   and requested_at > :since;

-- name: store_adjustment(bucket, id, owner, key, digest, member, programme, partner, contract, points, reason, requested_by, at, occurred_at, day, expires_on)!
-- A new adjustment; it waits until it is decided.
insert into adjustment (bucket, adjustment_id, owner_id, key, digest, member_id, programme_id, partner_id, contract_id,
                        points, reason, state, requested_by, requested_at, occurred_at, day, expires_on)
values (:bucket, :id, :owner, :key, :digest, :member, :programme, :partner, :contract, :points, :reason,
        'awaiting_approval', :requested_by, :at, :occurred_at, :day, :expires_on);

-- name: adjustment_for_update(bucket, id)^
-- An adjustment's state, locked while it is decided.
select state, requested_by, programme_id, partner_id, occurred_at
  from adjustment
 where bucket = :bucket
   and adjustment_id = :id
   for update;

-- name: roles_of_operator(operator)$
-- What an operator is by now, and until this transaction ends; null where it was disabled.
select roles
  from account
 where account_id = :operator
   and disabled_at is null
   for share;

-- name: decide_adjustment(bucket, id, state, decided_by, at, day, expires_on)!
-- Note what was decided and, where a second operator had to, by whom; what is given lasts from the day of the decision on.
update adjustment
   set state = :state,
       decided_by = :decided_by,
       decided_at = :at,
       day = :day,
       expires_on = :expires_on
 where bucket = :bucket
   and adjustment_id = :id;

-- name: refuse_adjustment(bucket, id, refusal)!
-- The ledger refused what one operator could have made alone: that is the answer to its key.
update adjustment
   set state = 'rejected',
       refusal = :refusal
 where bucket = :bucket
   and adjustment_id = :id;

-- name: adjustments_by_id(buckets, ids)
-- Adjustments with their postings, where they were posted.
select a.adjustment_id as id, a.member_id, a.programme_id, a.partner_id, a.points, a.reason, a.state, a.requested_by,
       a.requested_at, a.decided_by, a.decided_at, a.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :ids::uuid[]) i (bucket, id)
  join adjustment a on a.bucket = i.bucket and a.adjustment_id = i.id
  left join transaction t on t.bucket = a.bucket and t.transaction_id = a.adjustment_id;

-- name: adjustments_awaiting(after_at, after_id, most)
-- Adjustments that wait for a second operator, the oldest first.
select bucket, adjustment_id, requested_at
  from adjustment
 where state = 'awaiting_approval'
   and (requested_at, adjustment_id) > (:after_at::timestamptz, :after_id::uuid)
 order by requested_at, adjustment_id
 limit :most;
