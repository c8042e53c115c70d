-- depends: 0034_disabled
-- Every month from the coalition's first to the latest that anything was posted to has a row, so that the next open month
-- after a closed one is the next of the calendar, also where nothing was posted in it.
insert into period (month)
select m::date
  from coalition c
 cross join generate_series(c.started_on, (select max(p.month) from period p), interval '1 month') m
on conflict do nothing;

-- As before, but a month that is missing comes with all before it.
create or replace function lock_periods(months date[]) returns table (month date, posting date)
language plpgsql volatile as $$
declare
  locked date[];
  latest date := (select max(m) from unnest(months) m);
begin
  if not exists (select from public.period p where p.month = latest) then
    insert into public.period (month)
    select m::date
      from public.coalition c
     cross join generate_series(c.started_on, latest, interval '1 month') m
     order by 1
    on conflict do nothing;
  end if;

  loop
    select array_agg(p.month)
      into locked
      from (select q.month
              from public.period q
             where q.state = 'open'
               and q.month >= (select min(m) from unnest(months) m)
             order by q.month
               for share) p;
    exit when latest <= (select max(l) from unnest(locked) l);
    -- The last open month may have begun to close while the lock waited for it: open the one after, and look again.
    insert into public.period (month)
    select greatest(coalesce(max(p.month) + interval '1 month', c.started_on), c.started_on)
      from public.coalition c
      left join public.period p on true
     group by c.started_on
    on conflict do nothing;
  end loop;

  return query
  select m, (select min(l) from unnest(locked) l where l >= m)
    from (select distinct unnest(months)) i (m);
end $$;
