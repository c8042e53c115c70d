-- depends: 0055_logins_blinded
-- A return frees the partner's credit by the points that came back, and not by those that the member owes from then on: these were
-- spent, and a partner that gives back what was spent elsewhere could issue without end.

do $$
declare
  found text := pg_get_functiondef('post_returns'::regproc);
  before text := 'sum(i.points * prices[i.term] * 100) as charge
            from unnest(term, buckets, purchases, points, verdicts) i (term, bucket, purchase, points, verdict)';
begin
  if position(before in found) = 0 then
    raise exception 'post_returns is not what this migration expects: %', found;
  end if;
  execute replace(found, before, 'sum((b.points - b.owed) * prices[i.term] * 100) as charge
            from unnest(term, buckets, transactions, purchases, verdicts) i (term, bucket, transaction, purchase, verdict)
            join public.purchase_return b on b.bucket = i.bucket and b.transaction_id = i.transaction');
end $$;

update credit_slot c
   set used = c.used + o.charge
  from (select p.partner_id, sum(r.owed * k.issue_price * 100) as charge
          from purchase_return r
          join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id and p.charged
          join contract k on k.contract_id = p.contract_id
         group by p.partner_id) o
 where c.partner_id = o.partner_id
   and c.slot = 0;
