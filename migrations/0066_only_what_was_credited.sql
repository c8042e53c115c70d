-- depends: 0065_rates_begin
-- Who may post cannot complete an exchange that the partner has not said to have credited: the function looks itself.

do $$
declare
  found text := pg_get_functiondef('post_conversion'::regproc);
  looks constant text := 'where o.bucket = of_bucket and o.conversion_id = conversion;';
begin
  if position(looks in found) = 0 then
    raise exception 'post_conversion is not as expected';
  end if;
  execute replace(found, looks, looks || $body$
  if c.state is distinct from 'credited' then
    raise exception 'exchange % is %, and not credited', conversion, coalesce(c.state, 'unknown');
  end if;$body$);
end $$;
