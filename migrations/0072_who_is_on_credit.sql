-- depends: 0071_receipts_in_one_order
-- Charged are the partners that the batch found on credit when it began, as its transactions say: who got a first limit while it
-- waited for another's was charged without them, and nothing that came back freed it.

do $$
declare
  found text := pg_get_functiondef('take_credit'::regproc);
  posting text := pg_get_functiondef('post_earnings'::regproc);
  arguments constant text := 'take_credit(partners uuid[], ';
  looked_at constant text := 'any(partners)';
  call constant text := 'public.take_credit(partners, ';
begin
  if position(arguments in found) = 0 or cardinality(string_to_array(found, looked_at)) <> 3
    or cardinality(string_to_array(posting, call)) <> 2 then
    raise exception 'take_credit or post_earnings is not what this migration expects';
  end if;
  drop function take_credit;
  execute replace(replace(found, arguments, 'take_credit(on_credit uuid[], partners uuid[], '), looked_at, 'any(on_credit)');
  execute replace(posting, call, 'public.take_credit(on_credit, partners, ');
end $$;
revoke execute on function take_credit from public;
