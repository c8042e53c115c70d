-- depends: 0067_zones_by_their_names
-- Wallets are locked in one order; those that are not there yet are made after the others, in that order too. One that another
-- transaction made meanwhile would be locked out of turn, and two could wait for each other: the posting is done again instead
-- (SQLSTATE 40001), and finds it. For one that is being made in this very moment who holds others waits a tenth of a second at most:
-- less than the database takes to see that two wait for each other.

-- Lock wallets: what the fullest holds, and when something may be posted to all of them at the earliest; null where nothing was
-- posted yet.
drop function lock_wallets;
create function lock_wallets(
  buckets smallint[], members uuid[], programmes uuid[], out fullest bigint, out earliest timestamptz)
language plpgsql volatile as $$
declare
  wanted bigint;
  locked bigint;
  made bigint;
begin
  loop
    select count(*), coalesce(max(l.holds), 0), max(l.last_posted_at) + interval '1 microsecond'
      into locked, fullest, earliest
      from (select w.available + w.pending + w.held as holds, w.last_posted_at
              from (select distinct bucket, member, programme
                      from unnest(buckets, members, programmes) u (bucket, member, programme)
                     order by 1, 2, 3) i
              join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
             order by w.bucket, w.member_id, w.programme_id
               for update of w) l;
    exit when locked = cardinality(buckets);
    select count(*) into wanted
      from (select distinct bucket, member, programme
              from unnest(buckets, members, programmes) i (bucket, member, programme)) d;
    exit when locked = wanted;
    begin
      perform set_config('lock_timeout', case when locked > 0 then '100ms' else '2s' end, true);
      insert into public.wallet (bucket, member_id, programme_id)
      select distinct i.bucket, i.member, i.programme
        from unnest(buckets, members, programmes) i (bucket, member, programme)
       where not exists (
         select from public.wallet w where w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme)
       order by 1, 2, 3
      on conflict do nothing;
      get diagnostics made = row_count;
    exception when lock_not_available then
      if locked = 0 then
        raise;
      end if;
      made := 0;
    end;
    perform set_config('lock_timeout', '2s', true);
    exit when locked + made = wanted;
    -- Who holds none yet can look again.
    if locked + made > 0 then
      raise exception 'a wallet was made meanwhile' using errcode = '40001';
    end if;
  end loop;
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
  wanted bigint;
  filled bigint;
  made bigint;
  fullest bigint;
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
    returning w.owed, w.available + w.pending + w.held as holds, w.last_posted_at)
  select (select count(*) from s), count(*), coalesce(bool_or(f.owed > 0), false), coalesce(max(f.holds), 0),
         least(coalesce(max(f.last_posted_at), fill_wallets.at), fill_wallets.at + interval '5 seconds')
    into wanted, filled, owing, fullest, posted
    from filled f;

  if filled < wanted then
    begin
      perform set_config('lock_timeout', case when filled > 0 then '100ms' else '2s' end, true);
      with put as (
        insert into public.wallet as w (bucket, member_id, programme_id, available, pending, last_posted_at)
        select buckets[n], members[n], programmes[term[n]],
               coalesce(sum(points[n]) filter (where maturities[term[n]] is null), 0),
               coalesce(sum(points[n]) filter (where maturities[term[n]] is not null), 0),
               posted
          from generate_subscripts(term, 1) n
         where verdicts[n] = 'post'
           and not exists (
             select from public.wallet o
              where o.bucket = buckets[n] and o.member_id = members[n] and o.programme_id = programmes[term[n]])
         group by 1, 2, 3
         order by 1, 2, 3
        on conflict do nothing
        returning w.available + w.pending as holds)
      select count(*), greatest(fullest, max(p.holds)) into made, fullest from put p;
    exception when lock_not_available then
      if filled = 0 then
        raise;
      end if;
      made := 0;
    end;
    perform set_config('lock_timeout', '2s', true);
    if filled + made < wanted then
      raise exception 'a wallet was made meanwhile' using errcode = '40001';
    end if;
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
