-- name: redemptions_by_id(buckets, transactions)
-- Redemptions with their postings.
select r.transaction_id, r.membership_id, r.partner_id, r.programme_id, r.points, r.reference, r.hold_id, r.restored,
       t.member_id, t.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join redemption r on r.bucket = i.bucket and r.transaction_id = i.transaction
  join transaction t on t.bucket = r.bucket and t.transaction_id = r.transaction_id;

-- name: reversals_by_id(buckets, transactions)
-- Reversals with their postings and the redemptions they are of.
select v.transaction_id as id, v.redemption_id, t.member_id, r.partner_id, r.programme_id, v.points, t.occurred_at,
       t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join reversal v on v.bucket = i.bucket and v.transaction_id = i.transaction
  join redemption r on r.bucket = v.bucket and r.transaction_id = v.redemption_id
  join transaction t on t.bucket = v.bucket and t.transaction_id = v.transaction_id;
