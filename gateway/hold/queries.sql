-- name: hold_by_id(bucket, hold)^
-- A hold.
select hold_id, member_id, membership_id, partner_id, programme_id, points, captured, released, state, placed_at, expires_at, reference
  from hold
 where bucket = :bucket
   and hold_id = :hold;
