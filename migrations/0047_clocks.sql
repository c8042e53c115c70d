-- depends: 0046_in_order
-- A clock that is ahead moves what others post by five seconds at most, and decides nothing for them: whether a hold has run out,
-- which day's limit counts and which month something happened in goes by the clock of who asks. What expires within a posting comes
-- after it.

-- The moment itself, or the last one of its month in the coalition's time zone.
create function within_month(at timestamptz, month date) returns timestamptz
language sql stable as $$
  select least(at, ((month + interval '1 month')::timestamp at time zone c.timezone) - interval '1 microsecond')
    from public.coalition c
$$;
revoke execute on function within_month from public;

alter table redemption add column day date;

do $$
declare
  changed record;
  found text;
begin
  for changed in
    select * from (values
      ('post_redemptions', 'points, reference)', 'points, reference, day)'),
      ('post_redemptions', 'i.points, i.ref' || E'\n    from unnest(term, buckets, transactions',
                           'i.points, i.ref, todays[i.term]' || E'\n    from unnest(term, buckets, transactions'),
      ('post_captures', 'h.expires_at <= at)', 'h.expires_at <= asked)'),
      ('post_captures', E'\ndeclare\n', E'\ndeclare\n  asked timestamptz := at;\n'),
      ('post_reversal', 'then (select (t.posted_at at time zone c.timezone)::date',
                        'then (select coalesce(r.day, (t.posted_at at time zone c.timezone)::date)'),
      ('post_reversal', 'public.expire_lots(at,', 'public.expire_lots(at + interval ''1 microsecond'','),
      ('post_reversal', 'today - 1, at,', 'today - 1, public.within_month(at, date_trunc(''month'', today)::date),'),
      ('give_back_holds', 'public.expire_lots(at,', 'public.expire_lots(at + interval ''1 microsecond'','),
      ('give_back_holds', 'today - 1, at, month', 'today - 1, public.within_month(at, month), month')
    ) c (named, before, after)
  loop
    found := pg_get_functiondef(changed.named::regproc);
    if position(changed.before in found) = 0 then
      raise exception '% is not what this migration expects: %', changed.named, changed.before;
    end if;
    execute replace(found, changed.before, changed.after);
  end loop;
end $$;

do $$
declare
  named text;
  found text;
begin
  foreach named in array array['post_returns', 'post_redemptions', 'post_holds', 'post_captures', 'post_reversal', 'post_release',
                               'post_transfer', 'post_adjustment', 'place_hold', 'release_hold', 'post_conversion', 'post_earnings',
                               'post_maturities', 'post_expiries', 'post_run_out_holds', 'give_back_holds', 'expire_lots',
                               'fill_wallets'] loop
    found := pg_get_functiondef(named::regproc);
    found := regexp_replace(found, 'at := greatest\(at, (public\.earliest_for\([^;]*\))\);',
                            'at := greatest(at, least(\1, at + interval ''5 seconds''));', 'g');
    found := replace(found, 'set last_posted_at = at,', 'set last_posted_at = greatest(w.last_posted_at, at),');
    found := replace(found, '         coalesce(max(f.last_posted_at), fill_wallets.at)',
                     '         least(coalesce(max(f.last_posted_at), fill_wallets.at), fill_wallets.at + interval ''5 seconds'')');
    found := replace(found, 'greatest(posted, max(m.last_posted_at))',
                     'least(greatest(posted, max(m.last_posted_at)), fill_wallets.at + interval ''5 seconds'')');
    execute found;
  end loop;
end $$;
