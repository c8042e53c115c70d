-- depends: 0062_whose_points_a_gift_is_of
-- Every process holds a copy of what the coalition is made of, and read all of it each second: of thousands of stores, contracts
-- and rates, in two tenths of a second in which it answered nobody. Now it counts what was changed since.

-- A row each time something of the coalition is written. They are counted, since a number that is drawn later may be seen sooner;
-- and are rows of their own, so that nobody who writes waits for anybody else.
create table coalition_change (
  change_id bigint generated always as identity primary key
);
grant select on coalition_change to gateway_app;

create function note_coalition_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp as $$
begin
  insert into public.coalition_change default values;
  return null;
end $$;
revoke execute on function note_coalition_change() from public;

do $$
declare
  changed text;
begin
  foreach changed in array array['coalition', 'programme', 'partner', 'store', 'contract', 'conversion_rate'] loop
    execute format('create trigger noted after insert or update or delete or truncate on %I '
                   'for each statement execute function note_coalition_change()', changed);
  end loop;
end $$;
-- Whether there is one is all that is read of it; how much of it is used changes with every purchase.
create trigger noted after insert or delete or truncate on partner_credit
  for each statement execute function note_coalition_change();
