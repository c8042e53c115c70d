-- name: transfers_by_id(buckets, transactions)
-- Halves of transfers with their postings.
select f.transaction_id as id, f.direction, f.other_transaction_id, t.member_id, f.programme_id, f.points, f.message,
       t.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join transfer f on f.bucket = i.bucket and f.transaction_id = i.transaction
  join transaction t on t.bucket = f.bucket and t.transaction_id = f.transaction_id;
