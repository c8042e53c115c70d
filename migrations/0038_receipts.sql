-- depends: 0037_about
-- A receipt is looked up only where one is known to be repeated (decision 0025).

-- Lock what a batch takes credit from: one slot of each partner, or with `dealing` all of them, in the order of (partner,
-- slot). Months are locked before slots, and slots before wallets, so that nothing waits in a circle.
create function lock_slots(partners uuid[], of_slot smallint, dealing boolean) returns void
language plpgsql volatile as $$
begin
  perform from public.credit_slot s
    where s.partner_id = any(partners) and (dealing or s.slot = of_slot)
    order by s.partner_id, s.slot
      for update;
end $$;

-- Purchases: member +n, funder -n. Points go into the lot of (funder, contract, expiry day), at once or pending until
-- `maturities`; what the member owes is repaid first, in the order of the batch.
--
-- A batch is posted in the belief that its receipts are new and that its wallets are not full. Wallets are locked by adding
-- to them, receipts are claimed by their unique index. A batch that would fill a wallet (LG002) or repeats a receipt
-- (unique_violation) posts nothing and is to be called again with `careful`, which locks and looks first, and refuses one
-- by one. A receipt or a key that another batch posts at this very moment fails on its unique index in either case.
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
    perform public.lock_slots(on_credit, slot, dealing);
    perform public.lock_wallets(buckets, members, public.by_term(programmes, term));
  end if;
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  if careful then
    verdicts := public.refuse_known_receipts(partners, term, receipts, verdicts);
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

revoke execute on function lock_slots from public;
