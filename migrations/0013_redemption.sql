-- depends: 0012_earning
-- Points are spent, first-expiring first and within the programme's limits; and given back.

-- Which lots each item takes from, all or nothing: `items` numbers the item that `takes` points from each of `lots`.
-- Where `todays` are given, the programme's limits on spending hold, by the ledger's day. The caller never has two
-- items on one wallet.
create function choose_lots(
  buckets smallint[], members uuid[], programmes uuid[], days date[], points bigint[], verdicts text[], todays date[],
  out items bigint[], out lots uuid[], out takes bigint[], out answers text[]
) returns record
language plpgsql volatile as $$
begin
  select array_agg(i.n) filter (where v.verdict = 'post'),
         array_agg(l.lot_id) filter (where v.verdict = 'post'),
         array_agg(least(l.remaining, i.points - l.before)) filter (where v.verdict = 'post'),
         array_agg(v.verdict order by i.n) filter (where coalesce(l.before, 0) = 0)
    into items, lots, takes, answers
    from unnest(buckets, members, programmes, days, points, verdicts, todays) with ordinality
         i (bucket, member, programme, day, points, verdict, today, n)
    join public.programme g on g.programme_id = i.programme
    left join lateral public.lots_in_order(i.bucket, i.member, i.programme, i.day, null) l
      on i.verdict = 'post' and l.before < i.points
   cross join lateral (
     select case when i.verdict <> 'post' then i.verdict
                 when coalesce(l.total, 0) < i.points then 'INSUFFICIENT_POINTS'
                 when i.today is not null and i.points > g.spend_most then 'TRANSACTION_LIMIT_EXCEEDED'
                 when i.today is not null and g.spend_most_a_day < i.points + coalesce((
                        select s.points from public.spending s
                         where s.bucket = i.bucket and s.member_id = i.member and s.programme_id = i.programme
                           and s.day = i.today), 0)
                   then 'DAILY_LIMIT_REACHED'
                 else 'post' end as verdict) v;
end $$;

-- Count what was spent against the day's limit, where there is one.
create function note_spending(buckets smallint[], members uuid[], programmes uuid[], todays date[], points bigint[], verdicts text[])
returns void
language plpgsql volatile as $$
begin
  if exists (select from public.programme g where g.spend_most_a_day is not null and g.programme_id = any(programmes)) then
    insert into public.spending (bucket, member_id, programme_id, day, points)
    select i.bucket, i.member, i.programme, i.today, i.points
      from unnest(buckets, members, programmes, todays, points, verdicts) i (bucket, member, programme, today, points, verdict)
      join public.programme g on g.programme_id = i.programme and g.spend_most_a_day is not null
     where i.verdict = 'post'
     order by 1, 2, 3, 4
    on conflict (bucket, member_id, programme_id, day) do update set points = spending.points + excluded.points;
  end if;
end $$;

-- Redemptions: member -n, redeemer +n, all or nothing.
create function post_redemptions(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], months date[], days date[], todays date[],
  term smallint[],
  keys text[], digests bytea[], buckets smallint[], members uuid[], memberships uuid[], transactions uuid[],
  occurred timestamptz[], points bigint[], refs text[],
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  of_items uuid[] := public.by_term(programmes, term);
  on_days date[] := public.by_term(days, term);
  now_days date[] := public.by_term(todays, term);
  periods date[];
  verdicts text[];
  chosen record;
begin
  perform public.lock_wallets(buckets, members, of_items);
  periods := public.periods_of(months);
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  chosen := public.choose_lots(buckets, members, of_items, on_days, points, verdicts, now_days);
  verdicts := chosen.answers;

  perform public.take_from_lots('spent', buckets, transactions, chosen.items, chosen.lots, chosen.takes);
  update public.wallet w
     set available = w.available - i.points
    from unnest(buckets, members, of_items, points, verdicts) i (bucket, member, programme, points, verdict)
   where i.verdict = 'post'
     and w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme;

  perform public.note_spending(buckets, members, of_items, now_days, points, verdicts);

  perform public.journal(at, 'redemption', 'redeemer', -1, partners, programmes, contracts, months, periods, term, buckets,
                         transactions, members, memberships, occurred, points, null, verdicts);
  insert into public.redemption (bucket, transaction_id, membership_id, partner_id, programme_id, points, reference)
  select i.bucket, i.transaction, i.membership, partners[i.term], programmes[i.term], i.points, i.ref
    from unnest(term, buckets, transactions, memberships, points, refs, verdicts)
         i (term, bucket, transaction, membership, points, ref, verdict)
   where i.verdict = 'post';

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'redemption', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
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
  fullest bigint;
begin
  select * into r from public.redemption x where x.bucket = of_bucket and x.transaction_id = redemption;
  select * into e from public.entry x where x.bucket = of_bucket and x.transaction_id = redemption and x.ordinal = 1;
  fullest := public.lock_wallets(array[of_bucket], array[e.member_id], array[e.programme_id]);
  posting := (public.periods_of(array[month]))[1];
  verdict := (public.look_keys_up(array[owner], array[1::smallint], array[key], array[digest], array[of_bucket], array[posting]))[1];
  select * into r from public.redemption x where x.bucket = of_bucket and x.transaction_id = redemption;
  wanted := coalesce(wanted, greatest(r.points - r.restored, 1));
  if verdict = 'post' and r.restored + wanted > r.points then
    verdict := 'REVERSAL_EXCEEDS_REDEMPTION';
  elsif verdict = 'post' and fullest + wanted > public.most_points() then
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

    perform public.journal(
      at, 'reversal', 'redeemer', 1, array[e.partner_id], array[e.programme_id], array[e.contract_id], array[month],
      array[posting], array[1::smallint], array[of_bucket], array[transaction], array[e.member_id], array[r.membership_id],
      array[occurred], array[wanted], null, array[verdict]);
    insert into public.reversal (bucket, transaction_id, redemption_id, points)
    values (of_bucket, transaction, redemption, wanted);
    perform public.expire_lots(at, array[of_bucket], array[e.member_id], e.programme_id, today - 1, at,
                               date_trunc('month', today)::date);
    perform public.repay_debts(array[of_bucket], array[e.member_id], array[e.programme_id], array[today], array[transaction]);
  end if;

  select a.answers[1], coalesce(a.firsts[1], transaction) into verdict, posted
    from public.answer(at, 'reversal', array[owner], array[1::smallint], array[key], array[digest], array[of_bucket],
                       array[e.member_id], array[transaction], array[verdict], array[posting]) a;
end $$;
