-- depends: 0069_lots_that_are_full
-- Who sets a partner's limit locks its slots before the limit, as who notes a payment does: each waited for the other, and every
-- till of the partner for both.

do $$
declare
  found text := pg_get_functiondef('set_credit'::regproc);
  limits constant text := 'insert into public.partner_credit';
begin
  if position(limits in found) = 0 then
    raise exception 'set_credit is not what this migration expects';
  end if;
  execute replace(found, limits, $body$perform from public.credit_slot s where s.partner_id = of_partner order by s.slot for update;
  $body$ || limits);
end $$;

-- Nobody waits for somebody's lock for long, holding the slots that tills wait for.
alter function set_credit set lock_timeout = '2s';
alter function pay_credit set lock_timeout = '2s';
