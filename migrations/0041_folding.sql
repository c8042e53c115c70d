-- depends: 0040_one_order
-- What batches noted for settlement is added up in the background, so that closing a month reads a row for each party and price
-- and not one for each batch.

-- Make one delta of those that differ in nothing but their sums, where there are several; answers how many became one with
-- others. A batch that is noted meanwhile is left to the next time, and what another process folds at this moment to it.
create function fold_deltas() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp as $$
declare
  folded bigint;
begin
  with many as (
    select d.period, d.kind, d.programme_id, d.account, d.partner_id, d.contract_id
      from public.delta d
     group by d.period, d.kind, d.programme_id, d.account, d.partner_id, d.contract_id
    having count(*) > 1),
  gone as (
    delete from public.delta d
     using many m
     where d.period = m.period and d.kind = m.kind and d.programme_id = m.programme_id and d.account = m.account
       and d.partner_id = m.partner_id and d.contract_id = m.contract_id
    returning d.*),
  put as (
    insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points, transactions,
                              amount_minor)
    select gen_random_uuid(), g.period, g.kind, g.programme_id, g.account, g.partner_id, g.contract_id, sum(g.points),
           sum(g.transactions), sum(g.amount_minor)
      from gone g
     group by g.period, g.kind, g.programme_id, g.account, g.partner_id, g.contract_id)
  select count(*) into folded from gone;
  return folded;
end $$;
revoke execute on function fold_deltas from public;
grant execute on function fold_deltas to gateway_poster;
