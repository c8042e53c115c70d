-- depends: 0057_references_as_they_are_compared
-- What a member owes after a return keeps the partner's credit used until it is repaid, by whatever points. A job finds out, the
-- oldest return of a wallet first: a return says how much of what it left owed has been repaid since, and freed credit.

alter table purchase_return
  add column repaid bigint not null default 0,
  add check (repaid between 0 and owed);
create index purchase_return_owed on purchase_return (bucket, purchase_id) where owed > repaid;

-- Frees credit by what was repaid; answers of how many returns. One at a time: who comes meanwhile finds it done.
create function free_repaid_credit() returns int
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set lock_timeout = '2s'
as $$
declare
  freed record;
  found int := 0;
begin
  if not pg_try_advisory_xact_lock(hashtext('free_repaid_credit')) then
    return 0;
  end if;
  for freed in
    with still as (
      select r.bucket, r.transaction_id, p.partner_id, p.charged, k.issue_price, r.owed - r.repaid as points,
             sum(r.owed - r.repaid) over (partition by w.bucket, w.member_id, w.programme_id order by r.transaction_id) as so_far,
             sum(r.owed - r.repaid) over (partition by w.bucket, w.member_id, w.programme_id) - w.owed as repaid
        from public.purchase_return r
        join public.purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
        join public.contract k on k.contract_id = p.contract_id
        join public.wallet w on w.bucket = r.bucket and w.member_id = p.member_id and w.programme_id = p.programme_id
       where r.owed > r.repaid),
    marked as (
      update public.purchase_return r
         set repaid = r.repaid + least(s.points, s.repaid - (s.so_far - s.points))
        from still s
       where r.bucket = s.bucket and r.transaction_id = s.transaction_id and s.repaid > s.so_far - s.points
      returning s.partner_id, s.charged, least(s.points, s.repaid - (s.so_far - s.points)) * s.issue_price * 100 as price)
    select m.partner_id, coalesce(sum(m.price) filter (where m.charged), 0) as price, count(*) as returns
      from marked m
     group by m.partner_id
     order by m.partner_id
  loop
    found := found + freed.returns;
    if freed.price > 0 then
      perform public.deal_credit(freed.partner_id, freed.price);
    end if;
  end loop;
  return found;
end $$;
revoke execute on function free_repaid_credit from public;
grant execute on function free_repaid_credit to gateway_poster;

-- Migration 0056 counted what was ever owed, and dealt nothing anew.
do $$
begin
  perform public.free_repaid_credit();
  perform public.deal_credit(c.partner_id, 0) from public.partner_credit c order by c.partner_id;
end $$;
