-- depends: 0011_posting
-- What comes back: returns of purchases, reversals of redemptions; and what time does: maturing, expiry.

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
  first_lots uuid[];
  unripe bigint[];
  items bigint[];
  lots uuid[];
  takes bigint[];
begin
  perform public.lock_wallets(buckets, members, of_items);
  periods := public.periods_of(months);
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);

  select array_agg(l.lot_id order by i.n),
         array_agg(case when i.verdict = 'post' and p.returns <> i.version then 'STALE' else i.verdict end order by i.n),
         array_agg(least(i.points, coalesce(m.points - m.cancelled, 0)) order by i.n)
    into first_lots, verdicts, unripe
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

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, 'return', p.member_id, p.membership_id, p.partner_id, i.occurred, at, periods[i.term],
         case when periods[i.term] <> months[i.term] then months[i.term] end
    from unnest(term, buckets, transactions, purchases, occurred, verdicts)
         i (term, bucket, transaction, purchase, occurred, verdict)
    join public.purchase p on p.bucket = i.bucket and p.transaction_id = i.purchase
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, 'return', i.member, programmes[i.term], 'funder', partners[i.term], contracts[i.term],
         -i.points, periods[i.term]
    from unnest(term, buckets, transactions, members, points, verdicts) i (term, bucket, transaction, member, points, verdict)
   where i.verdict = 'post' and i.points > 0;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), periods[s.term], 'return', programmes[s.term], 'funder', partners[s.term], contracts[s.term],
         -s.points, s.transactions, s.amount
    from (select i.term, sum(i.points) as points, count(*) as transactions, sum(i.amount) as amount
            from unnest(term, points, amounts, verdicts) i (term, points, amount, verdict)
           where i.verdict = 'post'
           group by i.term) s;

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

-- Reversals: redeemer -n, member +n. Points go back to the lots that the redemption took them from, the last taken
-- first; what went back to a lot whose last day is over expires at once. `wanted` null: all that is left. One item a call.
create function post_reversal(
  at timestamptz, owner uuid, key text, digest bytea, of_bucket smallint, redemption uuid, transaction uuid,
  occurred timestamptz, month date, today date, wanted bigint, out verdict text, out posted uuid
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  r public.redemption;
  e public.entry;
  posting date;
  put record;
  wallets record;
begin
  select * into r from public.redemption x where x.bucket = of_bucket and x.transaction_id = redemption;
  select * into e from public.entry x where x.bucket = of_bucket and x.transaction_id = redemption and x.ordinal = 1;
  wallets := public.lock_wallets(array[of_bucket], array[e.member_id], array[e.programme_id]);
  posting := (public.periods_of(array[month]))[1];
  verdict := (public.look_keys_up(array[owner], array[1::smallint], array[key], array[digest], array[of_bucket], array[posting]))[1];
  select * into r from public.redemption x where x.bucket = of_bucket and x.transaction_id = redemption;
  wanted := coalesce(wanted, greatest(r.points - r.restored, 1));
  if verdict = 'post' and r.restored + wanted > r.points then
    verdict := 'REVERSAL_EXCEEDS_REDEMPTION';
  elsif verdict = 'post' and wallets.fullest + wanted > public.most_points() then
    verdict := 'WALLET_FULL';
  end if;

  if verdict = 'post' then
    for put in
      select t.lot_id, least(t.points - t.restored, wanted - t.before) as points
        from (select k.lot_id, k.points, k.restored,
                     sum(k.points - k.restored) over (order by l.expires_on desc, l.funder_id desc, l.contract_id desc)
                     - (k.points - k.restored) as before
                from public.lot_take k
                join public.lot l on l.bucket = k.bucket and l.lot_id = k.lot_id
               where k.bucket = of_bucket and k.transaction_id = redemption and k.effect = 'spent' and k.points > k.restored) t
       where t.before < wanted
    loop
      update public.lot_take k set restored = k.restored + put.points
       where k.bucket = of_bucket and k.transaction_id = redemption and k.lot_id = put.lot_id and k.effect = 'spent';
      update public.lot l set spent = l.spent - put.points, remaining = l.remaining + put.points
       where l.bucket = of_bucket and l.lot_id = put.lot_id;
      perform public.expect_expiry(array[of_bucket], array[put.lot_id]);
    end loop;
    update public.redemption x set restored = x.restored + wanted
     where x.bucket = of_bucket and x.transaction_id = redemption;
    update public.wallet w set available = w.available + wanted
     where w.bucket = of_bucket and w.member_id = e.member_id and w.programme_id = e.programme_id;

    insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                    posted_at, period, missed_period)
    values (of_bucket, transaction, 'reversal', e.member_id, r.membership_id, r.partner_id, occurred, at, posting,
            case when posting <> month then month end);
    insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                              contract_id, points, period)
    values (of_bucket, transaction, 1, 'reversal', e.member_id, e.programme_id, 'redeemer', e.partner_id, e.contract_id,
            wanted, posting);
    insert into public.reversal (bucket, transaction_id, redemption_id, points)
    values (of_bucket, transaction, redemption, wanted);
    insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                              transactions, amount_minor)
    values (gen_random_uuid(), posting, 'reversal', e.programme_id, 'redeemer', e.partner_id, e.contract_id, wanted, 1, 0);
    perform public.expire_lots(at, array[of_bucket], array[e.member_id], e.programme_id, today - 1, at,
                               date_trunc('month', today)::date);
    perform public.repay_debts(array[of_bucket], array[e.member_id], array[e.programme_id], array[today], array[transaction]);
  end if;

  select a.answers[1], coalesce(a.firsts[1], transaction) into verdict, posted
    from public.answer(at, 'reversal', array[owner], array[1::smallint], array[key], array[digest], array[of_bucket],
                       array[e.member_id], array[transaction], array[verdict], array[posting]) a;
end $$;

-- Pending points whose day has come become available, exactly once: a row that matured is not found again. What its
-- wallet owes is repaid at once.
create function post_maturities(at timestamptz, today date, most int) returns table (purchases bigint, points bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  buckets smallint[];
  transactions uuid[];
  members uuid[];
  programmes uuid[];
begin
  select array_agg(m.bucket), array_agg(m.transaction_id), array_agg(m.member_id), array_agg(m.programme_id)
    into buckets, transactions, members, programmes
    from (select d.bucket, d.transaction_id, d.member_id, d.programme_id
            from public.maturing d
           where d.matured_at is null and d.matures_on <= today
           order by d.matures_on, d.bucket, d.transaction_id
           limit most) m;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  perform public.lock_wallets(buckets, members, programmes);

  -- Another process may have matured some of them while the lock waited.
  select array_agg(m.bucket), array_agg(m.transaction_id), array_agg(m.member_id), array_agg(m.programme_id)
    into buckets, transactions, members, programmes
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction and m.matured_at is null;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;

  update public.maturing m set matured_at = at
    from unnest(buckets, transactions) i (bucket, transaction)
   where m.bucket = i.bucket and m.transaction_id = i.transaction;
  update public.lot l
     set pending = l.pending - s.points,
         remaining = l.remaining + s.points
    from (select m.bucket, m.lot_id, sum(m.points - m.cancelled)::bigint as points
            from unnest(buckets, transactions) i (bucket, transaction)
            join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction
           group by 1, 2) s
   where l.bucket = s.bucket and l.lot_id = s.lot_id;
  update public.wallet w
     set pending = w.pending - s.points,
         available = w.available + s.points
    from (select m.bucket, m.member_id, m.programme_id, sum(m.points - m.cancelled)::bigint as points
            from unnest(buckets, transactions) i (bucket, transaction)
            join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction
           group by 1, 2, 3) s
   where w.bucket = s.bucket and w.member_id = s.member_id and w.programme_id = s.programme_id;
  perform public.expect_expiry(s.buckets, s.lots)
     from (select array_agg(m.bucket) as buckets, array_agg(m.lot_id) as lots
             from unnest(buckets, transactions) i (bucket, transaction)
             join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction) s;
  perform public.repay_debts(s.buckets, s.members, s.programmes, s.days, s.transactions)
     from (select array_agg(u.bucket) as buckets, array_agg(u.member) as members, array_agg(u.programme) as programmes,
                  array_agg(today) as days, array_agg(u.transaction) as transactions
             from (select distinct on (i.bucket, i.member, i.programme) i.bucket, i.member, i.programme, i.transaction
                     from unnest(buckets, members, programmes, transactions) i (bucket, member, programme, transaction)
                    order by 1, 2, 3, 4) u) s;

  insert into public.outbox (kind, posted_at, members, transactions) values ('matured', at, members, transactions);
  return query
  select cardinality(buckets)::bigint, sum(m.points - m.cancelled)::bigint
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction;
end $$;
