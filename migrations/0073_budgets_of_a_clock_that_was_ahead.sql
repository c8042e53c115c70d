-- A budget whose moment lies ahead of the clock, because that was ahead and is right again, is restored from now on, and not
-- once it is that late. A few seconds ahead is who came earlier and waited for nobody: what was counted is not counted twice.
create or replace function take_budget(
  of_holder text, most double precision, rate double precision, needed double precision, wanted double precision,
  out taken double precision, out left_over double precision
) returns record
language plpgsql volatile
set search_path = pg_catalog, public as $$
declare
  moment timestamptz := clock_timestamp();
begin
  insert into public.budget as b (holder, available, as_of) values (of_holder, most, moment)
  on conflict (holder) do update
    set available = least(most, b.available + rate * greatest(0, extract(epoch from moment - b.as_of))),
        as_of = case when b.as_of > moment + interval '1 minute' then moment else greatest(b.as_of, moment) end
  returning b.available into left_over;
  taken := case when left_over >= needed then least(left_over, greatest(wanted, needed)) else 0 end;
  left_over := left_over - taken;
  update public.budget b set available = left_over where b.holder = of_holder;
end $$;
