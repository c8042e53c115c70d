-- depends: 0048_receipts_before_credit
-- A payment that a bank calls by one reference is noted once, whoever of the coalition's operators notes it.

do $migration$
declare
  found text := pg_get_functiondef('pay_credit'::regproc);
  before text := E'begin\n  insert into public.credit_payment';
  since text := $since$begin
  -- Who notes the same payment at the same time waits here, and finds it then.
  perform from public.credit_slot s where s.partner_id = of_partner order by s.slot for update;
  perform from public.credit_payment p
    where p.partner_id = of_partner and lower(p.reference) = lower(pay_credit.reference)
      and (p.owner_id, p.key) <> (pay_credit.owner, pay_credit.key);
  if found then
    return null;
  end if;
  insert into public.credit_payment$since$;
begin
  if position(before in found) = 0 then
    raise exception 'pay_credit is not what this migration expects: %', before;
  end if;
  execute replace(found, before, since);
end $migration$;
