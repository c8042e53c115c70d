-- depends: 0013_redemption
-- Points run out, and go back with what is returned.

-- Expire what is left of lots whose last day is before or on `through`, in wallets that the caller has locked.
-- Each wallet gets one transaction; those with nothing to lose get none. Answers the points that expired.
create function expire_lots(
  at timestamptz, buckets smallint[], members uuid[], of_programme uuid, through date, occurred timestamptz, month date
) returns bigint
language plpgsql volatile as $$
declare
  posting date := (select l.posting from public.lock_periods(array[month]) l);
  at_buckets smallint[];
  at_members uuid[];
  transactions uuid[];
  lost bigint;
begin
  select array_agg(d.bucket), array_agg(d.member), array_agg(public.new_id_in(d.bucket))
    into at_buckets, at_members, transactions
    from (select distinct i.bucket, i.member
            from unnest(buckets, members) i (bucket, member)
            join public.lot l on l.bucket = i.bucket and l.member_id = i.member and l.programme_id = of_programme
           where l.expires_on <= through and l.remaining > 0
           order by 1, 2) d;
  if at_buckets is null then
    return 0;
  end if;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select i.bucket, i.transaction, l.lot_id, 'expired', l.remaining
    from unnest(at_buckets, at_members, transactions) i (bucket, member, transaction)
    join public.lot l on l.bucket = i.bucket and l.member_id = i.member and l.programme_id = of_programme
   where l.expires_on <= through and l.remaining > 0;

  insert into public.transaction (bucket, transaction_id, kind, member_id, occurred_at, posted_at, period, missed_period)
  select i.bucket, i.transaction, 'expiry', i.member, occurred, at, posting, case when posting <> month then month end
    from unnest(at_buckets, at_members, transactions) i (bucket, member, transaction);

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select t.bucket, t.transaction_id,
         row_number() over (partition by t.bucket, t.transaction_id order by l.funder_id, l.contract_id), 'expiry',
         l.member_id, of_programme, 'expired', l.funder_id, l.contract_id, -sum(t.points), posting
    from unnest(at_buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
    join public.lot l on l.bucket = t.bucket and l.lot_id = t.lot_id
   group by t.bucket, t.transaction_id, l.member_id, l.funder_id, l.contract_id;

  update public.lot l
     set remaining = 0,
         expired = l.expired + t.points
    from unnest(at_buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
   where l.bucket = t.bucket and l.lot_id = t.lot_id;

  update public.wallet w
     set available = w.available - s.points
    from (select t.bucket, i.member, sum(t.points) as points
            from unnest(at_buckets, at_members, transactions) i (bucket, member, transaction)
            join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
           group by 1, 2) s
   where w.bucket = s.bucket and w.member_id = s.member and w.programme_id = of_programme;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), posting, 'expiry', of_programme, 'expired', e.partner_id, e.contract_id, sum(e.points),
         count(*), 0
    from unnest(at_buckets, transactions) i (bucket, transaction)
    join public.entry e on e.bucket = i.bucket and e.transaction_id = i.transaction
   group by e.partner_id, e.contract_id;

  insert into public.outbox (kind, posted_at, members, transactions)
  values ('expiry', at, at_members, transactions);

  select -sum(e.points) into lost
    from unnest(at_buckets, transactions) i (bucket, transaction)
    join public.entry e on e.bucket = i.bucket and e.transaction_id = i.transaction;
  return lost;
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
begin
  select array_agg(d.bucket), array_agg(d.member_id)
    into buckets, members
    from (select distinct e.bucket, e.member_id
            from (select d.bucket, d.member_id
                    from public.expiry_due d
                   where d.programme_id = of_programme and d.expires_on <= through
                   order by d.expires_on, d.bucket, d.member_id
                   limit most) e
           order by 1, 2) d;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  perform public.lock_wallets(buckets, members, array_fill(of_programme, array[cardinality(members)]));
  return query
  select cardinality(buckets)::bigint,
         public.expire_lots(at, buckets, members, of_programme, through, occurred, month);
  delete from public.expiry_due d
   using unnest(buckets, members) i (bucket, member)
   where d.programme_id = of_programme and d.expires_on <= through and d.bucket = i.bucket and d.member_id = i.member;
end $$;

-- Returns: member -n, funder +n. Points come back from what has not matured of the purchase, then from its own lot,
-- then first-expiring first; what is missing becomes owed, or the return is refused, as the programme's refund policy
-- says.
--
-- How many points an amount takes back is worked out by the caller from the purchase as it read it;
-- `versions` is the number of returns it saw. If there are more by now, the item is STALE: read again, ask again.
create function post_returns(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], prices numeric[], months date[], days date[],
  term smallint[], keys text[], digests bytea[], buckets smallint[], members uuid[], transactions uuid[],
  occurred timestamptz[], purchases uuid[], versions int[], amounts bigint[], points bigint[], lines text[], slot smallint,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
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
         array_agg(case when i.verdict = 'post' and p.returns <> i.version then 'STALE' else i.verdict end order by i.n),
         array_agg(least(i.points, coalesce(m.points - m.cancelled, 0)) order by i.n)
    into memberships, first_lots, verdicts, unripe
    from unnest(buckets, purchases, versions, points, verdicts) with ordinality
         i (bucket, purchase, version, points, verdict, n)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
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

  update public.purchase p
     set returned_minor = p.returned_minor + i.amount,
         returned_points = p.returned_points + i.points,
         returns = p.returns + 1
    from unnest(buckets, purchases, amounts, post_returns.points, verdicts) i (bucket, purchase, amount, points, verdict)
   where i.verdict = 'post' and p.bucket = i.bucket and p.transaction_id = i.purchase;

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
