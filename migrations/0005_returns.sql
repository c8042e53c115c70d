-- depends: 0004_posting
-- Returns: member -n, funder +n. Points come back from the purchase's own lot, then first-expiring first; what is
-- missing becomes owed, or the return is refused, as the programme's refund policy says.
--
-- How many points an amount takes back is worked out by the caller from the purchase as it read it;
-- `versions` is the number of returns it saw. If there are more by now, the item is STALE: read again, ask again.

create function post_returns(
  at timestamptz, owners uuid[], keys text[], digests bytea[], buckets smallint[], members uuid[], programmes uuid[],
  purchases uuid[], versions int[], transactions uuid[], occurred timestamptz[], months date[], days date[],
  amounts bigint[], points bigint[], lines text[]
) returns table (n bigint, transaction_id uuid, refusal text, replayed boolean, posting date)
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  periods date[];
  verdicts text[];
  first_lots uuid[];
begin
  perform public.lock_wallets(buckets, members, programmes);

  select array_agg(l.posting order by i.n) into periods
    from unnest(months) with ordinality i (month, n)
    join public.lock_periods(months) l on l.month = i.month;
  verdicts := public.look_keys_up(owners, keys, digests, buckets, periods);

  select array_agg(l.lot_id order by i.n),
         array_agg(case when i.verdict = 'post' and p.returns <> i.version then 'STALE' else i.verdict end order by i.n)
    into first_lots, verdicts
    from unnest(buckets, purchases, versions, verdicts) with ordinality i (bucket, purchase, version, verdict, n)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
    left join public.lot l
      on l.bucket = p.bucket and l.member_id = p.member_id and l.programme_id = p.programme_id
     and l.expires_on = p.expires_on and l.funder_id = p.partner_id and l.contract_id = p.contract_id;

  select array_agg(
           case when i.verdict = 'post' and g.refund_policy = 'within_balance' and i.points > coalesce((
                  select sum(l.remaining)
                    from public.lots_in_order(i.bucket, i.member, i.programme, i.day, i.first_lot) l), 0)
                then 'INSUFFICIENT_POINTS' else i.verdict end
           order by i.n)
    into verdicts
    from unnest(buckets, members, programmes, days, first_lots, points, verdicts) with ordinality
         i (bucket, member, programme, day, first_lot, points, verdict, n)
    join public.programme g on g.programme_id = i.programme;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select i.bucket, i.transaction, l.lot_id, 'returned', least(l.remaining, i.points - l.before)
    from unnest(buckets, members, programmes, transactions, days, first_lots, points, verdicts)
         i (bucket, member, programme, transaction, day, first_lot, points, verdict)
   cross join lateral public.lots_in_order(i.bucket, i.member, i.programme, i.day, i.first_lot) l
   where i.verdict = 'post' and l.before < i.points;

  update public.lot l
     set remaining = l.remaining - t.points,
         returned = l.returned + t.points
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
   where l.bucket = t.bucket and l.lot_id = t.lot_id;

  insert into public.purchase_return (bucket, transaction_id, purchase_id, amount_minor, points, owed, lines)
  select i.bucket, i.transaction, i.purchase, i.amount, i.points,
         i.points - coalesce((select sum(t.points) from public.lot_take t
                               where t.bucket = i.bucket and t.transaction_id = i.transaction), 0),
         i.lines::jsonb
    from unnest(buckets, transactions, purchases, amounts, points, lines, verdicts)
         i (bucket, transaction, purchase, amount, points, lines, verdict)
   where i.verdict = 'post';

  update public.wallet w
     set available = w.available - (r.points - r.owed),
         owed = w.owed + r.owed
    from unnest(buckets, members, programmes, transactions) i (bucket, member, programme, transaction)
    join public.purchase_return r on r.bucket = i.bucket and r.transaction_id = i.transaction
   where w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme;

  update public.purchase p
     set returned_minor = p.returned_minor + i.amount,
         returned_points = p.returned_points + i.points,
         returns = p.returns + 1
    from unnest(buckets, purchases, amounts, post_returns.points, verdicts) i (bucket, purchase, amount, points, verdict)
   where i.verdict = 'post' and p.bucket = i.bucket and p.transaction_id = i.purchase;

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, 'return', p.member_id, p.membership_id, p.partner_id, i.occurred, at, i.period,
         case when i.period <> i.month then i.month end
    from unnest(buckets, transactions, purchases, occurred, periods, months, verdicts)
         i (bucket, transaction, purchase, occurred, period, month, verdict)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, 'return', p.member_id, p.programme_id, 'funder', p.partner_id, p.contract_id,
         -i.points, i.period
    from unnest(buckets, transactions, purchases, points, periods, verdicts)
         i (bucket, transaction, purchase, points, period, verdict)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
   where i.verdict = 'post' and i.points > 0;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), i.period, 'return', p.programme_id, 'funder', p.partner_id, p.contract_id, -sum(i.points),
         count(*), sum(i.amount)
    from unnest(buckets, purchases, points, amounts, periods, verdicts)
         i (bucket, purchase, points, amount, period, verdict)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
   where i.verdict = 'post'
   group by i.period, p.programme_id, p.partner_id, p.contract_id;

  return query
  select a.n, a.transaction_id, a.refusal, a.replayed, periods[a.n]
    from public.answer(at, owners, keys, digests, buckets, transactions, verdicts) a;
end $$;

-- Expiry: member -n, expired +n, whole lots, for up to `most` wallets that have lots due by `through`. It looks at
-- what is left, so running it again finds nothing: exactly once needs no key.
create function post_expiries(
  at timestamptz, of_programme uuid, through date, occurred timestamptz, month date, most int
) returns table (wallets bigint, points bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  buckets smallint[];
  members uuid[];
  transactions uuid[];
  posting date;
begin
  select array_agg(d.bucket), array_agg(d.member_id), array_agg(public.new_id_in(d.bucket))
    into buckets, members, transactions
    from (select distinct l.bucket, l.member_id
            from public.lot l
           where l.programme_id = of_programme and l.expires_on <= through and l.remaining > 0
           order by 1, 2
           limit most) d;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  perform public.lock_wallets(buckets, members, array_fill(of_programme, array[cardinality(members)]));
  select l.posting into posting from public.lock_periods(array[month]) l;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select i.bucket, i.transaction, l.lot_id, 'expired', l.remaining
    from unnest(buckets, members, transactions) i (bucket, member, transaction)
    join public.lot l on l.bucket = i.bucket and l.member_id = i.member and l.programme_id = of_programme
   where l.expires_on <= through and l.remaining > 0;

  insert into public.transaction (bucket, transaction_id, kind, member_id, occurred_at, posted_at, period, missed_period)
  select i.bucket, i.transaction, 'expiry', i.member, occurred, at, posting, case when posting <> month then month end
    from unnest(buckets, members, transactions) i (bucket, member, transaction)
   where exists (select from public.lot_take t where t.bucket = i.bucket and t.transaction_id = i.transaction);

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select t.bucket, t.transaction_id,
         row_number() over (partition by t.bucket, t.transaction_id order by l.funder_id, l.contract_id), 'expiry',
         l.member_id, of_programme, 'expired', l.funder_id, l.contract_id, -sum(t.points), posting
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
    join public.lot l on l.bucket = t.bucket and l.lot_id = t.lot_id
   group by t.bucket, t.transaction_id, l.member_id, l.funder_id, l.contract_id;

  update public.lot l
     set remaining = 0,
         expired = l.expired + t.points
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
   where l.bucket = t.bucket and l.lot_id = t.lot_id;

  update public.wallet w
     set available = w.available - s.points
    from (select t.bucket, i.member, sum(t.points) as points
            from unnest(buckets, members, transactions) i (bucket, member, transaction)
            join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
           group by 1, 2) s
   where w.bucket = s.bucket and w.member_id = s.member and w.programme_id = of_programme;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), posting, 'expiry', of_programme, 'expired', e.partner_id, e.contract_id, sum(e.points),
         count(*), 0
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.entry e on e.bucket = i.bucket and e.transaction_id = i.transaction
   group by e.partner_id, e.contract_id;

  return query
  select cardinality(buckets)::bigint, coalesce(sum(t.points), 0)::bigint
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction;
end $$;
