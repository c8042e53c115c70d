-- depends: 0067_zones_by_their_names
-- Who makes a wallet makes it before it locks others. Made after them it could be one that another transaction had made and locked
-- meanwhile, which waited for the others: a circle, whatever the order.

-- Make the wallets that are not there yet; it waits for who makes one of them too. Nobody holds a lock on a wallet when it finds
-- something to make.
create function make_wallets(buckets smallint[], members uuid[], programmes uuid[]) returns void
language plpgsql volatile as $$
begin
  insert into public.wallet (bucket, member_id, programme_id)
  select distinct i.bucket, i.member, i.programme
    from unnest(buckets, members, programmes) i (bucket, member, programme)
   where not exists (
     select from public.wallet w where w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme)
   order by 1, 2, 3
  on conflict do nothing;
end $$;
revoke execute on function make_wallets from public;

-- Lock wallets, in one order: what the fullest holds, and when something may be posted to all of them at the earliest; null where
-- nothing was posted yet.
drop function lock_wallets;
create function lock_wallets(
  buckets smallint[], members uuid[], programmes uuid[], out fullest bigint, out earliest timestamptz)
language plpgsql volatile as $$
begin
  perform public.make_wallets(buckets, members, programmes);
  select max(l.holds), max(l.last_posted_at) + interval '1 microsecond'
    into fullest, earliest
    from (select w.available + w.pending + w.held as holds, w.last_posted_at
            from (select distinct bucket, member, programme
                    from unnest(buckets, members, programmes) u (bucket, member, programme)
                   order by 1, 2, 3) i
            join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
           order by w.bucket, w.member_id, w.programme_id
             for update of w) l;
end $$;
revoke execute on function lock_wallets from public;

-- Whoever locks wallets looked them up once more, to see when they were posted to last.
do $$
declare
  named text;
  found text;
  changed text;
  locks constant text := '(perform|fullest :=) public\.lock_wallets\(([^;]*)\);\s+at := greatest\(at, least\(public\.earliest_for\(\2\), ';
begin
  foreach named in array array['post_earnings', 'post_returns', 'post_redemptions', 'post_holds', 'post_captures', 'post_reversal',
                               'post_release', 'post_transfer', 'post_adjustment', 'place_hold', 'release_hold', 'post_conversion'] loop
    found := pg_get_functiondef(named::regproc);
    changed := regexp_replace(found, replace(locks, '(perform|fullest :=)', '(perform)'),
                              'at := greatest(at, least((public.lock_wallets(\2)).earliest, ');
    changed := regexp_replace(changed, replace(locks, '(perform|fullest :=)', '(fullest :=)') || 'at \+ interval ''5 seconds''\)\);',
                              'select l.fullest, greatest(at, least(l.earliest, at + interval ''5 seconds'')) into fullest, at '
                              'from public.lock_wallets(\2) l;');
    if changed = found or changed ~ 'earliest_for' then
      raise exception '% is not what this migration expects', named;
    end if;
    execute changed;
  end loop;
end $$;

create or replace function fill_wallets(
  at timestamptz, programmes uuid[], maturities date[], term smallint[], buckets smallint[], members uuid[], points bigint[],
  verdicts text[], out owing boolean, out posted timestamptz)
language plpgsql volatile as $$
declare
  fullest bigint;
begin
  perform public.make_wallets(array_agg(buckets[n]), array_agg(members[n]), array_agg(programmes[term[n]]))
     from generate_subscripts(term, 1) n
    where verdicts[n] = 'post';
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
    returning w.owed, w.available + w.pending + w.held as holds, w.last_posted_at)
  select coalesce(bool_or(f.owed > 0), false), coalesce(max(f.holds), 0),
         least(coalesce(max(f.last_posted_at), fill_wallets.at), fill_wallets.at + interval '5 seconds')
    into owing, fullest, posted
    from filled f;
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
