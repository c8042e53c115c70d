-- name: activity(as_partner, as_member, bucket, member, partner, before_at, before_id, most)
-- A member's transactions, newest first, from a cursor on; those of one partner where one is named.
select transaction_id, kind, member_id, membership_id, partner_id, programme_id, contract_id, store_id, receipt, currency,
       amount_minor, points, expires_on, lines, occurred_at, posted_at, period, missed_period, matures_on, returned_minor,
       returned_points, returns
  from read_activity(:as_partner, :as_member, :bucket, :member, :partner, :before_at, :before_id, :most);
