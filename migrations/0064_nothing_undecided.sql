-- depends: 0063_changes_of_the_coalition
-- Who may post cannot post what waits for a second operator, or was rejected: the function looks itself.

do $$
declare
  found text := pg_get_functiondef('post_adjustment'::regproc);
  looks constant text := 'fullest := public.lock_wallets(';
begin
  if position(looks in found) = 0 then
    raise exception 'post_adjustment is not as expected';
  end if;
  execute replace(found, looks, $body$if a.state is distinct from 'posted' then
    raise exception 'adjustment % is %, and not decided for', adjustment, coalesce(a.state, 'unknown');
  end if;
  $body$ || looks);
end $$;
