-- depends: 0047_clocks
-- A receipt that is posted already is refused as that, also where the credit would not do for it: the till learns what happened.

do $$
declare
  found text := pg_get_functiondef('post_earnings'::regproc);
  before text := E'  if careful then\n    verdicts := public.refuse_known_receipts(partners, term, receipts, verdicts);\n';
begin
  if position(before in found) = 0 then
    raise exception 'post_earnings is not what this migration expects: %', before;
  end if;
  execute replace(found, before,
                  E'  if careful or dealing then\n    verdicts := public.refuse_known_receipts(partners, term, receipts, verdicts);\n'
                  '  end if;\n  if careful then\n');
end $$;
