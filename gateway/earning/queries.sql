-- name: purchases_by_id(buckets, transactions)
-- Purchases with the postings that made them.
select p.transaction_id, p.member_id, p.membership_id, p.partner_id, p.programme_id, p.contract_id, p.store_id, p.receipt,
       p.currency, p.amount_minor, p.points, p.expires_on, p.lines::text as lines, p.returned_minor, p.returned_points, p.returns, m.matures_on, t.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join purchase p on p.bucket = i.bucket and p.transaction_id = i.transaction
  join transaction t on t.bucket = p.bucket and t.transaction_id = p.transaction_id
  left join maturing m on m.bucket = p.bucket and m.transaction_id = p.transaction_id;

-- name: purchases_by_receipt(partner, receipts)
-- Purchases of one partner by its tills' receipts.
select p.transaction_id, p.member_id, p.membership_id, p.partner_id, p.programme_id, p.contract_id, p.store_id, p.receipt,
       p.currency, p.amount_minor, p.points, p.expires_on, p.lines::text as lines, p.returned_minor, p.returned_points, p.returns, m.matures_on, t.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:receipts::text[]) i (receipt)
  join purchase p on p.partner_id = :partner and p.receipt = i.receipt
  join transaction t on t.bucket = p.bucket and t.transaction_id = p.transaction_id
  left join maturing m on m.bucket = p.bucket and m.transaction_id = p.transaction_id;

-- name: returned_lines(bucket, purchase)
-- The lines that came back of a purchase so far.
select lines::text as lines
  from purchase_return
 where bucket = :bucket
   and purchase_id = :purchase
   and lines is not null;

-- name: returns_by_id(buckets, transactions)
-- Returns with their postings and the purchases they are of.
select r.transaction_id, r.purchase_id, r.amount_minor, r.points, r.owed, p.currency, p.programme_id, p.partner_id,
       p.member_id, t.occurred_at, t.posted_at, t.period, t.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join purchase_return r on r.bucket = i.bucket and r.transaction_id = i.transaction
  join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
  join transaction t on t.bucket = r.bucket and t.transaction_id = r.transaction_id;
