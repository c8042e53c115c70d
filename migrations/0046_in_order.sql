-- depends: 0045_kept_refusals
-- A wallet knows when it was posted to last, and nothing is posted to it at an earlier moment, whichever gateway's clock said so:
-- its history runs in the order in which things happened.

alter table wallet add column last_posted_at timestamptz;

-- When something may be posted to these wallets at the earliest, all of which are locked; null where nothing was posted yet.
create function earliest_for(buckets smallint[], members uuid[], programmes uuid[]) returns timestamptz
language plpgsql volatile as $$
begin
  return (select max(w.last_posted_at) + interval '1 microsecond'
            from unnest(buckets, members, programmes) i (bucket, member, programme)
            join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme);
end $$;
revoke execute on function earliest_for from public;

do $$
declare
  named text;
  found text;
  changed text;
begin
  foreach named in array array['post_returns', 'post_redemptions', 'post_holds', 'post_captures', 'post_reversal', 'post_release',
                               'post_transfer', 'post_adjustment', 'place_hold', 'release_hold', 'post_conversion', 'post_earnings',
                               'post_maturities', 'post_expiries', 'post_run_out_holds', 'give_back_holds', 'expire_lots'] loop
    found := pg_get_functiondef(named::regproc);
    changed := regexp_replace(found, '(perform|fullest :=) public\.lock_wallets\(([^;]*)\);',
                              '\1 public.lock_wallets(\2);' || E'\n  at := greatest(at, public.earliest_for(\\2));', 'g');
    changed := regexp_replace(changed, 'free := public\.lock_free_wallets\(([^;]*)\);',
                              'free := public.lock_free_wallets(\1);' || E'\n  at := greatest(at, public.earliest_for(\\1));', 'g');
    changed := regexp_replace(changed, 'update public\.wallet w(\s+)set ', 'update public.wallet w\1set last_posted_at = at, ', 'g');
    if changed = found then
      raise exception '% is not what this migration expects', named;
    end if;
    execute changed;
  end loop;
end $$;

-- Add what a batch of purchases brings to its wallets, making those that are not there yet. A wallet that was posted to at a
-- later moment than `at` takes the whole batch with it; `posted` is when it is posted then.
drop function fill_wallets;
create function fill_wallets(
  at timestamptz, programmes uuid[], maturities date[], term smallint[], buckets smallint[], members uuid[], points bigint[],
  verdicts text[], out owing boolean, out posted timestamptz)
language plpgsql volatile as $$
declare
  wanted bigint;
  fullest bigint;
  filled_members uuid[];
  filled_programmes uuid[];
begin
  with s as materialized (
    select buckets[n] as bucket, members[n] as member, programmes[term[n]] as programme,
           coalesce(sum(points[n]) filter (where maturities[term[n]] is null), 0)::bigint as now,
           coalesce(sum(points[n]) filter (where maturities[term[n]] is not null), 0)::bigint as later
      from generate_subscripts(term, 1) n
     where verdicts[n] = 'post'
     group by 1, 2, 3
     order by 1, 2, 3),
  filled as (
    update public.wallet w
       set last_posted_at = greatest(fill_wallets.at, w.last_posted_at + interval '1 microsecond'),
           available = w.available + s.now,
           pending = w.pending + s.later
      from s
     where w.bucket = s.bucket and w.member_id = s.member and w.programme_id = s.programme
    returning w.member_id, w.programme_id, w.owed, w.available + w.pending + w.held as holds, w.last_posted_at)
  select (select count(*) from s), coalesce(bool_or(f.owed > 0), false), coalesce(max(f.holds), 0),
         coalesce(array_agg(f.member_id), '{}'), coalesce(array_agg(f.programme_id), '{}'),
         coalesce(max(f.last_posted_at), fill_wallets.at)
    into wanted, owing, fullest, filled_members, filled_programmes, posted
    from filled f;

  if cardinality(filled_members) < wanted then
    with made as (
      insert into public.wallet as w (bucket, member_id, programme_id, available, pending, last_posted_at)
      select buckets[n], members[n], programmes[term[n]],
             coalesce(sum(points[n]) filter (where maturities[term[n]] is null), 0),
             coalesce(sum(points[n]) filter (where maturities[term[n]] is not null), 0),
             posted
        from generate_subscripts(term, 1) n
       where verdicts[n] = 'post'
         and (members[n], programmes[term[n]]) not in (
           select f.member, f.programme from unnest(filled_members, filled_programmes) f (member, programme))
       group by 1, 2, 3
       order by 1, 2, 3
      on conflict (bucket, member_id, programme_id) do update
        set available = w.available + excluded.available,
            pending = w.pending + excluded.pending,
            last_posted_at = greatest(excluded.last_posted_at, w.last_posted_at + interval '1 microsecond')
      returning w.owed, w.available + w.pending + w.held as holds, w.last_posted_at)
    select owing or coalesce(bool_or(m.owed > 0), false), greatest(fullest, max(m.holds)), greatest(posted, max(m.last_posted_at))
      into owing, fullest, posted from made m;
  end if;
  if fullest > public.most_points() then
    raise exception 'a wallet would be too full' using errcode = 'LG002';
  end if;
  if posted > fill_wallets.at then
    update public.wallet w
       set last_posted_at = posted
      from unnest(term, buckets, members, verdicts) i (term, bucket, member, verdict)
     where i.verdict = 'post' and w.bucket = i.bucket and w.member_id = i.member and w.programme_id = programmes[i.term]
       and w.last_posted_at < posted;
  end if;
end $$;
revoke execute on function fill_wallets from public;

-- What posts in batches says when it was posted: `at` goes in, and comes out as it was kept.
do $$
declare
  named text;
  found text;
  filled text := '  owing := public.fill_wallets(programmes, maturities, term, buckets, members, points, verdicts);';
begin
  foreach named in array array['post_earnings', 'post_returns', 'post_redemptions', 'post_holds', 'post_captures'] loop
    found := pg_get_functiondef(named::regproc);
    if position(format('FUNCTION public.%s(at timestamp with time zone,', named) in found) = 0
       or (named = 'post_earnings' and position(filled in found) = 0) then
      raise exception '% is not what this migration expects', named;
    end if;
    found := replace(found, format('FUNCTION public.%s(at timestamp with time zone,', named),
                     format('FUNCTION public.%s(INOUT at timestamp with time zone,', named));
    found := replace(found, filled, $sql$  select f.owing, f.posted into owing, at
    from public.fill_wallets(at, programmes, maturities, term, buckets, members, points, verdicts) f;$sql$);
    execute format('drop function %s', named::regproc);
    execute found;
    execute format('revoke execute on function %s from public', named::regproc);
    execute format('grant execute on function %s to gateway_poster', named::regproc);
  end loop;
end $$;
