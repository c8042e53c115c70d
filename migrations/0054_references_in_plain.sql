-- depends: 0053_moments_of_quotes
-- A payment is noted once under its reference without what differs from one copy of it to another, which the gateway works out
-- (gateway/credit/credit.py) and which is kept as `plain`. Some databases have this from an earlier form of migration 0049.

alter table credit_payment add column if not exists plain text;
update credit_payment
   set plain = lower(replace(normalize(reference, NFKC), ' ', ''))
 where reference is not null
   and plain is null;
create index if not exists credit_payment_plain on credit_payment (partner_id, plain) where plain is not null;

drop function if exists pay_credit(uuid, text, uuid, bigint, text, timestamptz);

create or replace function pay_credit(
  owner uuid, key text, of_partner uuid, amount bigint, reference text, plain text, at timestamptz
) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
  -- Who notes the same payment at the same time waits here, and finds it then.
  perform from public.credit_slot s where s.partner_id = of_partner order by s.slot for update;
  perform from public.credit_payment p
    where p.partner_id = of_partner and p.plain = pay_credit.plain
      and (p.owner_id, p.key) <> (pay_credit.owner, pay_credit.key);
  if found then
    return null;
  end if;
  insert into public.credit_payment (owner_id, key, partner_id, amount_minor, reference, plain, paid_at)
  values (owner, key, of_partner, amount, pay_credit.reference, pay_credit.plain, at)
  on conflict do nothing;
  if not found then
    return false;
  end if;
  perform public.deal_credit(of_partner, amount);
  update public.partner_credit c set last_paid_minor = amount where c.partner_id = of_partner;
  return true;
end $$;

revoke execute on function pay_credit from public;
grant execute on function pay_credit to gateway_poster;
