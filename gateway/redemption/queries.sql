-- name: redemptions_by_id(buckets, transactions)
-- Redemptions with their postings.
select r.transaction_id, r.membership_id, r.partner_id, r.programme_id, r.points, r.reference, t.member_id, t.occurred_at,
       t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join redemption r on r.bucket = i.bucket and r.transaction_id = i.transaction
  join transaction t on t.bucket = r.bucket and t.transaction_id = r.transaction_id;
