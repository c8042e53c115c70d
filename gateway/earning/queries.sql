-- name: purchases_by_id(buckets, transactions)
-- Purchases, and what came back of them so far.
select p.transaction_id, p.member_id, p.membership_id, p.partner_id, p.programme_id, p.contract_id, p.store_id, p.receipt,
       p.currency, p.amount_minor, p.points, p.expires_on, p.lines::text as lines, r.minor as returned_minor,
       r.points as returned_points, r.returns, m.matures_on, p.occurred_at, p.posted_at, p.period, p.missed_period
  from unnest(:buckets::smallint[], :transactions::uuid[]) i (bucket, transaction)
  join purchase p on p.bucket = i.bucket and p.transaction_id = i.transaction
  left join maturing m on m.bucket = p.bucket and m.transaction_id = p.transaction_id
 cross join lateral (
    select coalesce(sum(v.amount_minor), 0)::bigint as minor, coalesce(sum(v.points), 0)::bigint as points, count(*)::int as returns
      from purchase_return v
     where v.bucket = p.bucket and v.purchase_id = p.transaction_id) r;

-- name: purchases_by_receipt(partner, receipts)
-- Purchases of one partner by its tills' receipts, and what came back of them so far.
select p.transaction_id, p.member_id, p.membership_id, p.partner_id, p.programme_id, p.contract_id, p.store_id, p.receipt,
       p.currency, p.amount_minor, p.points, p.expires_on, p.lines::text as lines, r.minor as returned_minor,
       r.points as returned_points, r.returns, m.matures_on, p.occurred_at, p.posted_at, p.period, p.missed_period
  from unnest(:receipts::text[]) i (receipt)
  join purchase p on p.partner_id = :partner and p.receipt = i.receipt
  left join maturing m on m.bucket = p.bucket and m.transaction_id = p.transaction_id
 cross join lateral (
    select coalesce(sum(v.amount_minor), 0)::bigint as minor, coalesce(sum(v.points), 0)::bigint as points, count(*)::int as returns
      from purchase_return v
     where v.bucket = p.bucket and v.purchase_id = p.transaction_id) r;

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
