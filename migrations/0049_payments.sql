-- depends: 0048_receipts_before_credit
-- A payment that a bank calls by one reference is noted once, whoever of the coalition's operators notes it. `plain` is the reference
-- without what differs from one copy of it to another; the gateway works it out (gateway/credit/credit.py).

alter table credit_payment add column plain text;
update credit_payment
   set plain = lower(replace(normalize(reference, NFKC), ' ', ''))
 where reference is not null;
create index credit_payment_plain on credit_payment (partner_id, plain) where plain is not null;

do $migration$
declare
  found text := pg_get_functiondef('pay_credit'::regproc);
  changed record;
begin
  for changed in
    select * from (values
      ('reference text, at timestamp', 'reference text, plain text, at timestamp'),
      (E'begin\n  insert into public.credit_payment (owner_id, key, partner_id, amount_minor, reference, paid_at)', $since$begin
  -- Who notes the same payment at the same time waits here, and finds it then.
  perform from public.credit_slot s where s.partner_id = of_partner order by s.slot for update;
  perform from public.credit_payment p
    where p.partner_id = of_partner and p.plain = pay_credit.plain
      and (p.owner_id, p.key) <> (pay_credit.owner, pay_credit.key);
  if found then
    return null;
  end if;
  insert into public.credit_payment (owner_id, key, partner_id, amount_minor, reference, plain, paid_at)$since$),
      ('values (owner, key, of_partner, amount, reference, at)',
       'values (owner, key, of_partner, amount, pay_credit.reference, pay_credit.plain, at)')
    ) c (before, since)
  loop
    if position(changed.before in found) = 0 then
      raise exception 'pay_credit is not what this migration expects: %', changed.before;
    end if;
    found := replace(found, changed.before, changed.since);
  end loop;
  execute found;
end $migration$;

drop function pay_credit(uuid, text, uuid, bigint, text, timestamptz);
revoke execute on function pay_credit from public;
grant execute on function pay_credit to gateway_poster;
