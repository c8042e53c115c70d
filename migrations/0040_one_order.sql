-- depends: 0039_reading
-- Whatever posts locks in one order, months, then partners' credit, then wallets, so that nothing waits in a circle. Functions
-- that locked wallets first lock them after their months now, and are the same otherwise.

do $$
declare
  moved record;
  found text;
begin
  for moved in
    select * from (values
      ('post_redemptions', 'perform public.lock_wallets(buckets, members, of_items);', 'periods := public.periods_of(months);'),
      ('post_captures', 'perform public.lock_wallets(buckets, members, of_items);', 'periods := public.periods_of(months);'),
      ('post_returns', 'perform public.lock_wallets(buckets, members, of_items);', 'periods := public.periods_of(months);'),
      ('post_transfer', 'perform public.lock_wallets(array[of_bucket, other_bucket], array[member, other], array[of_programme, of_programme]);',
       'posting := (public.periods_of(array[month]))[1];'),
      ('post_reversal', 'fullest := public.lock_wallets(array[of_bucket], array[e.member_id], array[e.programme_id]);',
       'posting := (public.periods_of(array[month]))[1];'),
      ('post_adjustment', 'fullest := public.lock_wallets(array[of_bucket], array[a.member_id], array[a.programme_id]);',
       'posting := (public.periods_of(array[month]))[1];'),
      ('post_conversion', 'perform public.lock_wallets(array[of_bucket], array[c.member_id], array[c.source_id]);',
       'posting := (public.periods_of(array[month]))[1];')
    ) m (name, wallets, months)
  loop
    found := pg_get_functiondef(moved.name::regproc);
    if position(moved.wallets || E'\n  ' || moved.months in found) = 0 then
      raise exception '% is not what this migration expects', moved.name;
    end if;
    execute replace(found, moved.wallets || E'\n  ' || moved.months, moved.months || E'\n  ' || moved.wallets);
  end loop;

  -- Points that come back may expire at once, in this month.
  for moved in
    select * from (values
      ('post_release', 'perform public.lock_wallets(array[of_bucket], array[h.member_id], array[h.programme_id]);'),
      ('release_hold', 'perform public.lock_wallets(array[of_bucket], array[h.member_id], array[h.programme_id]);'),
      ('post_expiries', 'perform public.lock_wallets(buckets, members, array_fill(of_programme, array[cardinality(members)]));')
    ) m (name, wallets)
  loop
    found := pg_get_functiondef(moved.name::regproc);
    if position(moved.wallets in found) = 0 then
      raise exception '% is not what this migration expects', moved.name;
    end if;
    execute replace(found, moved.wallets, 'perform public.periods_of(array[month]);' || E'\n  ' || moved.wallets);
  end loop;

  -- A return gives credit back: its slots, too, come before its wallets.
  found := pg_get_functiondef('post_returns'::regproc);
  execute replace(found, 'perform public.lock_wallets(buckets, members, of_items);',
                  E'perform public.lock_slots(partners, slot, false);\n  perform public.lock_wallets(buckets, members, of_items);');
end $$;

-- A reversal may expire points in today's month as well as in its own: both are locked before the wallet.
do $$
declare
  found text := pg_get_functiondef('post_reversal'::regproc);
begin
  execute replace(found, 'posting := (public.periods_of(array[month]))[1];',
                  'posting := (public.periods_of(array[month, date_trunc(''month'', today)::date]))[1];');
end $$;

-- Give back what holds whose time is over still set aside, up to `most` of them. Which these are is asked again once their
-- wallets are locked: some may have been captured or released meanwhile.
create or replace function post_run_out_holds(at timestamptz, today date, month date, most int) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  buckets smallint[];
  holds uuid[];
  members uuid[];
  programmes uuid[];
begin
  select array_agg(h.bucket), array_agg(h.hold_id), array_agg(h.member_id), array_agg(h.programme_id)
    into buckets, holds, members, programmes
    from (select o.bucket, o.hold_id, o.member_id, o.programme_id
            from public.hold o
           where o.state = 'open' and o.expires_at <= at
           order by o.expires_at
           limit most) h;
  if buckets is null then
    return 0;
  end if;
  perform public.periods_of(array[month]);
  perform public.lock_wallets(buckets, members, programmes);
  select array_agg(h.bucket), array_agg(h.hold_id), array_agg(h.member_id)
    into buckets, holds, members
    from unnest(buckets, holds) i (bucket, hold)
    join public.hold h on h.bucket = i.bucket and h.hold_id = i.hold and h.state = 'open';
  if buckets is null then
    return 0;
  end if;
  perform public.give_back_holds(at, buckets, holds, 'expired', today, month);
  insert into public.outbox (kind, posted_at, members, transactions) values ('hold_expired', at, members, holds);
  return cardinality(buckets);
end $$;

-- Refuse the items that would bring their wallet beyond what it can hold; what is refused takes no room from those behind it.
create or replace function refuse_what_overflows(
  programmes uuid[], term smallint[], buckets smallint[], members uuid[], points bigint[], verdicts text[]
) returns text[]
language plpgsql volatile as $$
declare
  answers text[] := verdicts;
  item record;
  so_far numeric;
begin
  for item in
    select i.n, i.points, w.available + w.pending + w.held as holds,
           lag(row(i.bucket, i.member, programmes[i.term])) over in_order is distinct from
             row(i.bucket, i.member, programmes[i.term]) as another
      from unnest(term, buckets, members, points, verdicts) with ordinality i (term, bucket, member, points, verdict, n)
      join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = programmes[i.term]
     where i.verdict = 'post'
    window in_order as (order by i.bucket, i.member, programmes[i.term], i.n)
     order by i.bucket, i.member, programmes[i.term], i.n
  loop
    if item.another then
      so_far := item.holds;
    end if;
    if so_far + item.points > public.most_points() then
      answers[item.n] := 'WALLET_FULL';
    else
      so_far := so_far + item.points;
    end if;
  end loop;
  return answers;
end $$;

-- Debts are also repaid by what holds gave back, under the hold's id.
drop policy own on lot_take;
create policy own on lot_take for select to gateway_reader
  using (exists (select from transaction t where t.bucket = lot_take.bucket and t.transaction_id = lot_take.transaction_id)
         or exists (select from hold h where h.bucket = lot_take.bucket and h.hold_id = lot_take.transaction_id));

-- A batch that waits for somebody else's lock holds up everything behind it: it gives up and its items are posted one by one.
alter function post_earnings set lock_timeout = '2s';
alter function post_returns set lock_timeout = '2s';
alter function post_redemptions set lock_timeout = '2s';
alter function post_holds set lock_timeout = '2s';
alter function post_captures set lock_timeout = '2s';
