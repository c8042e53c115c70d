-- depends: 0014_giving_back
-- Holds: points set aside from lots, captured whole or in parts, released, or run out by the clock.

-- Reserve chosen lots for new holds: what all ways of placing a hold share.
create function reserve_lots(buckets smallint[], holds uuid[], items bigint[], lots uuid[], takes bigint[]) returns void
language plpgsql volatile as $$
begin
  insert into public.hold_lot (bucket, hold_id, lot_id, points)
  select buckets[t.item], holds[t.item], t.lot, t.points
    from unnest(items, lots, takes) t (item, lot, points);

  update public.lot l
     set remaining = l.remaining - t.points,
         held = l.held + t.points
    from unnest(items, lots, takes) t (item, lot, points)
   where l.bucket = buckets[t.item] and l.lot_id = t.lot;
end $$;

create function post_holds(
  at timestamptz, partners uuid[], programmes uuid[], months date[], days date[], todays date[], term smallint[],
  keys text[], digests bytea[], buckets smallint[], members uuid[], memberships uuid[], transactions uuid[], points bigint[],
  until timestamptz[], refs text[],
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
  verdicts text[];
  chosen record;
begin
  perform public.lock_wallets(buckets, members, of_items);
  -- A hold moves no points between accounts, so it needs no open period: capturing it does.
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, months);
  chosen := public.choose_lots(buckets, members, of_items, on_days, points, verdicts, now_days);
  verdicts := chosen.answers;

  insert into public.hold (bucket, hold_id, member_id, programme_id, partner_id, membership_id, points, placed_at,
                           expires_at, reference, day, counted)
  select i.bucket, i.transaction, i.member, programmes[i.term], partners[i.term], i.membership, i.points, at, i.until, i.ref,
         todays[i.term], g.spend_most_a_day is not null
    from unnest(term, buckets, transactions, members, memberships, points, until, refs, verdicts)
         i (term, bucket, transaction, member, membership, points, until, ref, verdict)
    join public.programme g on g.programme_id = programmes[i.term]
   where i.verdict = 'post';
  perform public.reserve_lots(buckets, transactions, chosen.items, chosen.lots, chosen.takes);

  update public.wallet w
     set available = w.available - i.points,
         held = w.held + i.points
    from unnest(buckets, members, of_items, points, verdicts) i (bucket, member, programme, points, verdict)
   where i.verdict = 'post'
     and w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme;
  perform public.note_spending(buckets, members, of_items, now_days, points, verdicts);

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'hold', partners, term, keys, digests, buckets, members, transactions, verdicts, months) a;
end $$;

-- Capture part of open holds: member -n, redeemer +n, out of the lots that the hold reserved, first-expiring first,
-- whether their last day is over or not; null points are all that is left. The hold stays open for the rest. Holds of
-- orders, which no membership placed, are not captured here.
create function post_captures(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], months date[], term smallint[], keys text[],
  digests bytea[], buckets smallint[], members uuid[], transactions uuid[], occurred timestamptz[], holds uuid[],
  points bigint[], refs text[],
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
  items bigint[];
  lots uuid[];
  takes bigint[];
  wanted bigint[];
  memberships uuid[];
begin
  perform public.lock_wallets(buckets, members, of_items);
  periods := public.periods_of(months);
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);

  select array_agg(case when i.verdict <> 'post' then i.verdict
                        when h.membership_id is null then 'HOLD_NOT_OPEN'
                        when h.state = 'expired' or (h.state = 'open' and h.expires_at <= at) then 'HOLD_EXPIRED'
                        when h.state <> 'open' then 'HOLD_NOT_OPEN'
                        when i.points > h.points - h.captured - h.released then 'CAPTURE_EXCEEDS_HOLD'
                        else 'post' end
                   order by i.n),
         array_agg(coalesce(i.points, h.points - h.captured - h.released) order by i.n),
         array_agg(h.membership_id order by i.n),
         array_agg(coalesce(i.ref, h.reference) order by i.n)
    into verdicts, wanted, memberships, refs
    from unnest(buckets, holds, points, refs, verdicts) with ordinality i (bucket, hold, points, ref, verdict, n)
    join public.hold h on h.bucket = i.bucket and h.hold_id = i.hold;

  select array_agg(i.n), array_agg(r.lot_id), array_agg(least(r.held, i.points - r.before))
    into items, lots, takes
    from unnest(buckets, holds, wanted, verdicts) with ordinality i (bucket, hold, points, verdict, n)
   cross join lateral (
     select t.lot_id, t.points - t.captured - t.released as held,
            sum(t.points - t.captured - t.released) over (order by l.expires_on, l.funder_id, l.contract_id)
            - (t.points - t.captured - t.released) as before
       from public.hold_lot t
       join public.lot l on l.bucket = t.bucket and l.lot_id = t.lot_id
      where t.bucket = i.bucket and t.hold_id = i.hold and t.points > t.captured + t.released) r
   where i.verdict = 'post' and r.before < i.points;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select buckets[t.item], transactions[t.item], t.lot, 'spent', t.points
    from unnest(items, lots, takes) t (item, lot, points);
  update public.hold_lot r
     set captured = r.captured + t.points
    from unnest(items, lots, takes) t (item, lot, points)
   where r.bucket = buckets[t.item] and r.hold_id = holds[t.item] and r.lot_id = t.lot;
  update public.lot l
     set held = l.held - t.points,
         spent = l.spent + t.points
    from unnest(items, lots, takes) t (item, lot, points)
   where l.bucket = buckets[t.item] and l.lot_id = t.lot;
  update public.hold h
     set captured = h.captured + i.points,
         state = case when h.captured + h.released + i.points = h.points then 'captured' else 'open' end,
         resolved_at = case when h.captured + h.released + i.points = h.points then at end
    from unnest(buckets, holds, wanted, verdicts) i (bucket, hold, points, verdict)
   where i.verdict = 'post' and h.bucket = i.bucket and h.hold_id = i.hold;
  update public.wallet w
     set held = w.held - i.points
    from unnest(buckets, members, of_items, wanted, verdicts) i (bucket, member, programme, points, verdict)
   where i.verdict = 'post'
     and w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme;

  perform public.journal(at, 'redemption', 'redeemer', -1, partners, programmes, contracts, months, periods, term, buckets,
                         transactions, members, memberships, occurred, wanted, null, verdicts);
  insert into public.redemption (bucket, transaction_id, membership_id, partner_id, programme_id, points, reference, hold_id)
  select i.bucket, i.transaction, i.membership, partners[i.term], programmes[i.term], i.points, i.ref, i.hold
    from unnest(term, buckets, transactions, memberships, holds, wanted, refs, verdicts)
         i (term, bucket, transaction, membership, hold, points, ref, verdict)
   where i.verdict = 'post';

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'redemption', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
end $$;

-- Give what is left of open holds back to their lots; `ending` is the state they come to. What went back to a lot
-- whose last day is over expires at once, and what the wallet owes is repaid. The caller has locked the wallets
-- and notes it in the outbox.
create function give_back_holds(
  at timestamptz, buckets smallint[], holds uuid[], ending text, today date, month date
) returns void
language plpgsql volatile as $$
declare
  h public.hold;
  given bigint;
begin
  for h in
    select o.* from unnest(buckets, holds) i (bucket, hold)
      join public.hold o on o.bucket = i.bucket and o.hold_id = i.hold and o.state = 'open'
  loop
    given := h.points - h.captured - h.released;
    update public.lot l
       set held = l.held - (t.points - t.captured - t.released),
           remaining = l.remaining + (t.points - t.captured - t.released)
      from public.hold_lot t
     where t.bucket = h.bucket and t.hold_id = h.hold_id and l.bucket = t.bucket and l.lot_id = t.lot_id;
    update public.hold_lot t set released = t.points - t.captured
     where t.bucket = h.bucket and t.hold_id = h.hold_id;
    update public.hold o set state = ending, released = o.points - o.captured, resolved_at = at
     where o.bucket = h.bucket and o.hold_id = h.hold_id;
    update public.wallet w set held = w.held - given, available = w.available + given
     where w.bucket = h.bucket and w.member_id = h.member_id and w.programme_id = h.programme_id;
    if h.counted then
      update public.spending s set points = greatest(s.points - given, 0)
       where s.bucket = h.bucket and s.member_id = h.member_id and s.programme_id = h.programme_id and s.day = h.day;
    end if;
    perform public.expect_expiry(array_agg(t.bucket), array_agg(t.lot_id))
       from public.hold_lot t where t.bucket = h.bucket and t.hold_id = h.hold_id;
    perform public.expire_lots(at, array[h.bucket], array[h.member_id], h.programme_id, today - 1, at, month);
    perform public.repay_debts(array[h.bucket], array[h.member_id], array[h.programme_id], array[today], array[h.hold_id]);
  end loop;
end $$;

-- Release one hold by its key. Answers 'post', 'replay' or a refusal.
create function post_release(
  at timestamptz, owner uuid, key text, digest bytea, of_bucket smallint, hold uuid, today date, month date,
  out verdict text
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  h public.hold;
begin
  select * into h from public.hold o where o.bucket = of_bucket and o.hold_id = hold;
  perform public.lock_wallets(array[of_bucket], array[h.member_id], array[h.programme_id]);
  select * into h from public.hold o where o.bucket = of_bucket and o.hold_id = hold;
  verdict := (public.look_keys_up(array[owner], array[1::smallint], array[key], array[digest], array[of_bucket], array[month]))[1];
  if verdict = 'post' and (h.state <> 'open' or h.membership_id is null) then
    verdict := case h.state when 'expired' then 'HOLD_EXPIRED' else 'HOLD_NOT_OPEN' end;
  end if;
  if verdict = 'post' then
    perform public.give_back_holds(at, array[of_bucket], array[hold], 'released', today, month);
  end if;
  verdict := (public.answer(at, 'release', array[owner], array[1::smallint], array[key], array[digest], array[of_bucket],
                            array[h.member_id], array[hold], array[verdict], array[month])).answers[1];
end $$;

-- Give back what holds whose time is over still set aside, up to `most` of them.
create function post_run_out_holds(at timestamptz, today date, month date, most int) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, public
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
  perform public.lock_wallets(buckets, members, programmes);
  perform public.give_back_holds(at, buckets, holds, 'expired', today, month);
  insert into public.outbox (kind, posted_at, members, transactions) values ('hold_expired', at, members, holds);
  return cardinality(buckets);
end $$;
