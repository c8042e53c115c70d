-- depends: 0035_every_month
-- A purchase is its transaction (decision 0024): what the till said lies in the same row, and what came back of it is
-- added up from its returns. A purchase is two rows in the books, itself and its key's answer. Purchases from before move
-- into their transactions; a million of them take about half a minute.

alter table transaction
  add column store_id uuid,
  add column receipt text,
  add column currency text,
  add column amount_minor bigint,
  add column expires_on date,
  add column charged boolean,
  add column lines jsonb,
  drop constraint transaction_entry_whole;

update transaction t
   set programme_id = p.programme_id, contract_id = p.contract_id,
       account = case when p.points > 0 then 'funder' end, points = nullif(p.points, 0),
       store_id = p.store_id, receipt = p.receipt, currency = p.currency, amount_minor = p.amount_minor,
       expires_on = p.expires_on, charged = p.charged, lines = p.lines
  from purchase p
 where t.bucket = p.bucket and t.transaction_id = p.transaction_id;
delete from further_entry where kind = 'earning';

-- Of a purchase, all that it needs, and of anything else nothing of it. A transaction of one entry has all of that.
alter table transaction
  add constraint transaction_entry_whole
    check (case when points is not null then num_nulls(partner_id, programme_id, account, contract_id) = 0
                else account is null and (kind = 'earning' or num_nonnulls(programme_id, contract_id) = 0) end),
  add constraint transaction_purchase_whole
    check (case when kind = 'earning'
                then num_nulls(membership_id, partner_id, programme_id, contract_id, receipt, currency, expires_on, charged) = 0
                     and amount_minor >= 0 and amount_minor is not null and coalesce(points, 1) > 0
                else num_nonnulls(store_id, receipt, currency, amount_minor, expires_on, charged, lines) = 0 end);
-- What is new goes to the end of an index that begins with the id, whatever its bucket: nearly always the same page.
alter table transaction drop constraint transaction_pkey;
alter table transaction add primary key (transaction_id, bucket);
alter table redemption drop constraint redemption_pkey;
alter table redemption add primary key (transaction_id, bucket);
create unique index transaction_receipt on transaction (partner_id, receipt) where receipt is not null;

drop policy own on maturing;
drop policy own on purchase_return;
drop table purchase;

create view purchase with (security_invoker = true) as
select bucket, transaction_id, member_id, membership_id, partner_id, programme_id, contract_id, store_id, receipt, currency,
       amount_minor, coalesce(points, 0) as points, expires_on, charged, lines, occurred_at, posted_at, period, missed_period
  from transaction
 where kind = 'earning';
grant select on purchase to gateway_app, gateway_reader;

create policy own on maturing for select to gateway_reader
  using (exists (select from transaction t where t.bucket = maturing.bucket and t.transaction_id = maturing.transaction_id));
create policy own on purchase_return for select to gateway_reader
  using (exists (select from transaction t
                  where t.bucket = purchase_return.bucket and t.transaction_id = purchase_return.purchase_id));

-- As before, by the index of receipts.
create or replace function refuse_known_receipts(partners uuid[], term smallint[], receipts text[], verdicts text[]) returns text[]
language plpgsql stable as $$
begin
  if not exists (
       select from generate_subscripts(receipts, 1) n
         join public.transaction t on t.partner_id = partners[term[n]] and t.receipt = receipts[n]
        where verdicts[n] = 'post') then
    return verdicts;
  end if;
  return (select array_agg(
           case when verdicts[n] = 'post' and t.receipt is not null then 'RECEIPT_ALREADY_POSTED' else verdicts[n] end
           order by n)
    from generate_subscripts(receipts, 1) n
    left join public.transaction t on t.partner_id = partners[term[n]] and t.receipt = receipts[n]);
end $$;

-- Write a batch's sums, which settlement reads. `sign` as in `journal`.
create function note_sums(
  of_kind text, of_account text, sign int, partners uuid[], programmes uuid[], contracts uuid[], periods date[],
  term smallint[], points bigint[], amounts bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
begin
  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), periods[s.term], of_kind, programmes[s.term], of_account, partners[s.term], contracts[s.term],
         sign * s.points, s.transactions, s.amount
    from (select term[n] as term, sum(points[n]) as points, count(*) as transactions, coalesce(sum(amounts[n]), 0) as amount
            from generate_subscripts(term, 1) n
           where verdicts[n] = 'post'
           group by 1) s;
end $$;
revoke execute on function note_sums from public;

-- Write what is posted into the books: each item a transaction, with its entry between its member's wallet and the
-- `of_account` of its term's partner, and the batch's sums. `sign` says which way the points go: 1 to the member, -1
-- from it. An item without points has a transaction and no entry. Purchases, which say more, have their own way in.
create or replace function journal(
  at timestamptz, of_kind text, of_account text, sign int, partners uuid[], programmes uuid[], contracts uuid[],
  months date[], periods date[], term smallint[], buckets smallint[], transactions uuid[], members uuid[],
  memberships uuid[], occurred timestamptz[], points bigint[], amounts bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
begin
  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period, programme_id, account, contract_id, points)
  select buckets[n], transactions[n], of_kind, members[n], memberships[n], partners[term[n]], occurred[n], at,
         periods[term[n]], case when periods[term[n]] <> months[term[n]] then months[term[n]] end,
         case when points[n] > 0 then programmes[term[n]] end, case when points[n] > 0 then of_account end,
         case when points[n] > 0 then contracts[term[n]] end, case when points[n] > 0 then sign * points[n] end
    from generate_subscripts(term, 1) n
   where verdicts[n] = 'post';
  perform public.note_sums(of_kind, of_account, sign, partners, programmes, contracts, periods, term, points, amounts,
                           verdicts);
end $$;

-- Purchases: member +n, funder -n. Points go into the lot of (funder, contract, expiry day), at once or pending until
-- `maturities`; what the member owes is repaid first, in the order of the batch.
--
-- Nothing but a full wallet makes a purchase depend on what the wallet holds, so wallets are locked by adding to them.
-- A batch that would fill one posts nothing and asks (LG002) to be called again with `careful`, which locks first and
-- refuses one by one. A receipt or a key that another batch posts at this very moment fails on its unique index, and the
-- batch is posted again.
create or replace function post_earnings(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], currencies text[], months date[], expiries date[],
  maturities date[], prices numeric[], term smallint[], keys text[], digests bytea[], buckets smallint[], members uuid[],
  memberships uuid[], transactions uuid[], occurred timestamptz[], points bigint[], receipts text[], stores uuid[],
  amounts bigint[], lines text[], slot smallint, dealing boolean, careful boolean,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_hashagg = off as $$
declare
  periods date[] := public.periods_of(months);
  on_credit uuid[] := array(select c.partner_id from public.partner_credit c where c.partner_id = any(partners));
  verdicts text[];
  owing boolean;
begin
  if careful then
    perform public.lock_wallets(buckets, members, public.by_term(programmes, term));
  end if;
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  verdicts := public.refuse_known_receipts(partners, term, receipts, verdicts);
  if careful then
    verdicts := public.refuse_what_overflows(programmes, term, buckets, members, points, verdicts);
  end if;
  if cardinality(on_credit) > 0 then
    verdicts := public.take_credit(partners, prices, term, points, verdicts, slot, dealing);
  end if;

  owing := public.fill_wallets(programmes, maturities, term, buckets, members, points, verdicts);
  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period, programme_id, account, contract_id, points, store_id,
                                  receipt, currency, amount_minor, expires_on, charged, lines)
  select buckets[n], transactions[n], 'earning', members[n], memberships[n], partners[term[n]], occurred[n], at,
         periods[term[n]], case when periods[term[n]] <> months[term[n]] then months[term[n]] end, programmes[term[n]],
         case when points[n] > 0 then 'funder' end, contracts[term[n]], nullif(points[n], 0), stores[n], receipts[n],
         currencies[term[n]], amounts[n], expiries[term[n]], partners[term[n]] = any(on_credit), lines[n]::jsonb
    from generate_subscripts(term, 1) n
   where verdicts[n] = 'post';
  perform public.note_sums('earning', 'funder', 1, partners, programmes, contracts, periods, term, points, amounts, verdicts);

  perform public.fill_lots(at, partners, programmes, contracts, expiries, maturities, term, buckets, members, transactions,
                           points, verdicts);
  if owing then
    perform public.repay_from_earnings(programmes, partners, contracts, expiries, maturities, term, buckets, members,
                                       transactions, points, verdicts);
  end if;

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'earning', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
end $$;

-- Returns: member -n, funder +n. Points come back from what has not matured of the purchase, then from its own lot,
-- then first-expiring first; what is missing becomes owed, or the return is refused, as the programme's refund policy
-- says.
--
-- How many points an amount takes back is worked out by the caller from the purchase as it read it;
-- `versions` is the number of returns it saw. If there are more by now, the item is STALE: read again, ask again.
create or replace function post_returns(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], prices numeric[], months date[], days date[],
  term smallint[], keys text[], digests bytea[], buckets smallint[], members uuid[], transactions uuid[],
  occurred timestamptz[], purchases uuid[], versions int[], amounts bigint[], points bigint[], lines text[], slot smallint,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  of_items uuid[] := public.by_term(programmes, term);
  periods date[];
  verdicts text[];
  memberships uuid[];
  first_lots uuid[];
  unripe bigint[];
  items bigint[];
  lots uuid[];
  takes bigint[];
begin
  perform public.lock_wallets(buckets, members, of_items);
  periods := public.periods_of(months);
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);

  select array_agg(p.membership_id order by i.n),
         array_agg(l.lot_id order by i.n),
         array_agg(case when i.verdict = 'post' and v.returns <> i.version then 'STALE' else i.verdict end order by i.n),
         array_agg(least(i.points, coalesce(m.points - m.cancelled, 0)) order by i.n)
    into memberships, first_lots, verdicts, unripe
    from unnest(buckets, purchases, versions, points, verdicts) with ordinality
         i (bucket, purchase, version, points, verdict, n)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
   cross join lateral (
     select count(*) as returns from public.purchase_return r where r.bucket = i.bucket and r.purchase_id = i.purchase) v
    left join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.purchase and m.matured_at is null
    left join public.lot l
      on l.bucket = p.bucket and l.member_id = p.member_id and l.programme_id = p.programme_id
     and l.expires_on = p.expires_on and l.funder_id = p.partner_id and l.contract_id = p.contract_id;

  select array_agg(i.n) filter (where v.verdict = 'post' and l.lot_id is not null),
         array_agg(l.lot_id) filter (where v.verdict = 'post' and l.lot_id is not null),
         array_agg(least(l.remaining, i.points - i.unripe - l.before)) filter (where v.verdict = 'post' and l.lot_id is not null),
         array_agg(v.verdict order by i.n) filter (where coalesce(l.before, 0) = 0)
    into items, lots, takes, verdicts
    from unnest(term, buckets, members, first_lots, points, unripe, verdicts) with ordinality
         i (term, bucket, member, first_lot, points, unripe, verdict, n)
    join public.programme g on g.programme_id = programmes[i.term]
    left join lateral public.lots_in_order(i.bucket, i.member, programmes[i.term], days[i.term], i.first_lot) l
      on i.verdict = 'post' and l.before < i.points - i.unripe
   cross join lateral (
     select case when i.verdict = 'post' and g.refund_policy = 'within_balance'
                      and coalesce(l.total, 0) < i.points - i.unripe
                 then 'INSUFFICIENT_POINTS' else i.verdict end as verdict) v;

  update public.maturing m
     set cancelled = m.cancelled + i.unripe
    from unnest(buckets, purchases, unripe, verdicts) i (bucket, purchase, unripe, verdict)
   where i.verdict = 'post' and i.unripe > 0 and m.bucket = i.bucket and m.transaction_id = i.purchase;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select s.bucket, s.transaction, s.lot, 'returned', sum(s.points)
    from (select buckets[t.item] as bucket, transactions[t.item] as transaction, t.lot, t.points
            from unnest(items, lots, takes) t (item, lot, points)
           union all
          select i.bucket, i.transaction, i.first_lot, i.unripe
            from unnest(buckets, transactions, first_lots, unripe, verdicts) i (bucket, transaction, first_lot, unripe, verdict)
           where i.verdict = 'post' and i.unripe > 0) s
   group by s.bucket, s.transaction, s.lot;

  update public.lot l
     set remaining = l.remaining - t.points,
         returned = l.returned + t.points
    from unnest(items, lots, takes) t (item, lot, points)
   where l.bucket = buckets[t.item] and l.lot_id = t.lot;

  update public.lot l
     set pending = l.pending - i.unripe,
         returned = l.returned + i.unripe
    from unnest(buckets, first_lots, unripe, verdicts) i (bucket, first_lot, unripe, verdict)
   where i.verdict = 'post' and i.unripe > 0 and l.bucket = i.bucket and l.lot_id = i.first_lot;

  insert into public.purchase_return (bucket, transaction_id, purchase_id, amount_minor, points, owed, lines)
  select i.bucket, i.transaction, i.purchase, i.amount, i.points,
         i.points - coalesce((select sum(t.points) from public.lot_take t
                               where t.bucket = i.bucket and t.transaction_id = i.transaction), 0),
         i.lines::jsonb
    from unnest(buckets, transactions, purchases, amounts, points, lines, verdicts)
         i (bucket, transaction, purchase, amount, points, lines, verdict)
   where i.verdict = 'post';

  update public.wallet w
     set pending = w.pending - i.unripe,
         available = w.available - (r.points - r.owed - i.unripe),
         owed = w.owed + r.owed
    from unnest(term, buckets, members, transactions, unripe) i (term, bucket, member, transaction, unripe)
    join public.purchase_return r on r.bucket = i.bucket and r.transaction_id = i.transaction
   where w.bucket = i.bucket and w.member_id = i.member and w.programme_id = programmes[i.term];

  if exists (
       select from unnest(buckets, purchases, verdicts) i (bucket, purchase, verdict)
         join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
        cross join lateral (
          select sum(r.amount_minor) as amount_minor, sum(r.points) as points
            from public.purchase_return r
           where r.bucket = i.bucket and r.purchase_id = i.purchase) b
        where i.verdict = 'post' and (b.amount_minor > p.amount_minor or b.points > p.points)) then
    raise exception 'more would come back of a purchase than it was' using errcode = 'check_violation';
  end if;

  perform public.journal(at, 'return', 'funder', -1, partners, programmes, contracts, months, periods, term, buckets,
                         transactions, members, memberships, occurred, points, amounts, verdicts);

  -- Issued points that come back free the partner's credit, if issuing them used it.
  perform from public.credit_slot c
    where c.partner_id = any(partners) and c.slot = post_returns.slot
    order by c.partner_id
      for update;
  update public.credit_slot c
     set used = c.used - s.charge
    from (select r.partner_id as partner, sum(i.points * prices[i.term] * 100) as charge
            from unnest(term, buckets, purchases, points, verdicts) i (term, bucket, purchase, points, verdict)
            join public.purchase r on r.bucket = i.bucket and r.transaction_id = i.purchase and r.charged
           where i.verdict = 'post'
           group by 1) s
   where c.partner_id = s.partner and c.slot = post_returns.slot;

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'return', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
end $$;
