-- depends: 0058_debts_repaid
-- Whose credit stays used for what members owe. Migration 0058 took each repayment for good, though a purchase that repaid a debt
-- may come back as well, and a return may take another partner's points: so the debt of one partner's returns could be moved into
-- another's credit. Now it is found out anew from the wallet as it stands.

-- What a member owes, by the partner and the contract of the purchases whose returns left it; `charged` where issuing their points
-- used credit. `fresh` since a return added to it and until `place_debts` has looked.
create table debt (
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  programme_id uuid not null,
  partner_id uuid not null,
  contract_id uuid not null,
  charged boolean not null,
  points bigint not null check (points > 0),
  fresh boolean not null default true,
  primary key (bucket, member_id, programme_id, partner_id, contract_id, charged)
);

-- What debts that were placed anew make of partners' credit, in minor units: to deal it locks all of a partner's slots, which nobody
-- may do who has wallets already.
create table debt_moved (
  partner_id uuid not null,
  freed numeric not null
);

do $$
declare
  walled regclass;
begin
  foreach walled in array array['debt', 'debt_moved']::regclass[] loop
    execute format('alter table %s enable row level security', walled);
    execute format('alter table %s force row level security', walled);
    execute format('create policy past_the_wall on %s to gateway_app, %I using (true) with check (true)', walled, current_user);
  end loop;
end $$;
grant select on debt, debt_moved to gateway_app;

insert into debt (bucket, member_id, programme_id, partner_id, contract_id, charged, points)
select p.bucket, p.member_id, p.programme_id, p.partner_id, p.contract_id, p.charged, sum(r.owed - r.repaid)
  from purchase_return r
  join purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
 where r.owed > r.repaid
 group by 1, 2, 3, 4, 5, 6;
drop function free_repaid_credit;
drop index purchase_return_owed;
alter table purchase_return drop column repaid;

do $$
declare
  found text := pg_get_functiondef('post_returns'::regproc);
  before text := '  if exists (
       select from unnest(buckets, purchases, verdicts)';
begin
  if position(before in found) = 0 then
    raise exception 'post_returns is not what this migration expects: %', found;
  end if;
  execute replace(found, before, '  insert into public.debt (bucket, member_id, programme_id, partner_id, contract_id, charged, points)
  select p.bucket, p.member_id, p.programme_id, p.partner_id, p.contract_id, p.charged, sum(r.owed)
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.purchase_return r on r.bucket = i.bucket and r.transaction_id = i.transaction and r.owed > 0
    join public.purchase p on p.bucket = r.bucket and p.transaction_id = r.purchase_id
   group by 1, 2, 3, 4, 5, 6
  on conflict (bucket, member_id, programme_id, partner_id, contract_id, charged)
    do update set points = debt.points + excluded.points, fresh = true;

' || before);
end $$;

-- Places what members owe with the partners whose points were used and whose goods came back, in up to `most` wallets after a given
-- one where that may have changed and that nobody has locked. Answers of how many there are, where to go on, and how many debts
-- changed.
--
-- A return overdraws its wallet by what its partner's own lots did not give: these points had been used. What a partner's lots
-- gave otherwise, to debts and to returns of others, covers its own overdrafts first and then those of others, the oldest first;
-- what is left is what the member owes. So a partner bears no more than it overdrew, and who gives back what once covered a debt
-- brings that debt back to where it was. One at a time: who comes meanwhile finds it done.
create function place_debts(
  after_bucket int, after_member uuid, after_programme uuid, most int,
  out wallets int, out last_bucket int, out last_member uuid, out last_programme uuid, out changed bigint
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  buckets smallint[];
  members uuid[];
  programmes uuid[];
  free int[];
begin
  changed := 0;
  wallets := 0;
  last_bucket := after_bucket;
  last_member := after_member;
  last_programme := after_programme;
  if not pg_try_advisory_xact_lock(hashtext('place_debts')) then
    return;
  end if;
  select array_agg(s.bucket), array_agg(s.member_id), array_agg(s.programme_id)
    into buckets, members, programmes
    from (select d.bucket, d.member_id, d.programme_id
            from public.debt d
            join public.wallet w on w.bucket = d.bucket and w.member_id = d.member_id and w.programme_id = d.programme_id
           where (d.bucket, d.member_id, d.programme_id) > (after_bucket, after_member, after_programme)
           group by 1, 2, 3
          having bool_or(d.fresh) or sum(d.points) <> min(w.owed)
           order by 1, 2, 3
           limit most) s;
  if buckets is null then
    return;
  end if;
  wallets := cardinality(buckets);
  last_bucket := buckets[wallets];
  last_member := members[wallets];
  last_programme := programmes[wallets];
  free := public.lock_free_wallets(buckets, members, programmes);
  with due as materialized (
    select w.bucket, w.member_id, w.programme_id, w.owed
      from unnest(free) n
      join public.wallet w on w.bucket = buckets[n] and w.member_id = members[n] and w.programme_id = programmes[n]),
  claimed as materialized (
    select d.bucket, d.member_id, d.programme_id, p.partner_id, p.contract_id, p.charged, t.posted_at, t.transaction_id,
           coalesce(o.points, 0) as own, r.points - coalesce(o.points, 0) as points
      from due d
      join public.transaction t on t.bucket = d.bucket and t.member_id = d.member_id and t.kind = 'return'
      join public.purchase_return r on r.bucket = t.bucket and r.transaction_id = t.transaction_id
      join public.purchase p
        on p.bucket = r.bucket and p.transaction_id = r.purchase_id and p.programme_id = d.programme_id
     cross join lateral (
       select sum(k.points) as points
         from public.lot_take k
         join public.lot l on l.bucket = k.bucket and l.lot_id = k.lot_id and l.funder_id = p.partner_id
        where k.bucket = r.bucket and k.transaction_id = r.transaction_id and k.effect = 'returned') o),
  covering as materialized (
    select d.bucket, d.member_id, d.programme_id, l.funder_id,
           sum(l.returned) - coalesce((select sum(c.own) from claimed c
                                        where c.bucket = d.bucket and c.member_id = d.member_id
                                          and c.programme_id = d.programme_id and c.partner_id = l.funder_id), 0) as points
      from due d
      join public.lot l on l.bucket = d.bucket and l.member_id = d.member_id and l.programme_id = d.programme_id
     group by 1, 2, 3, 4),
  overdrawn as (
    select c.*, greatest(least(c.points, sum(c.points) over oldest_first - coalesce(g.points, 0)), 0) as still
      from claimed c
      left join covering g
        on g.bucket = c.bucket and g.member_id = c.member_id and g.programme_id = c.programme_id and g.funder_id = c.partner_id
    window oldest_first as (
      partition by c.bucket, c.member_id, c.programme_id, c.partner_id
          order by c.posted_at, c.contract_id, c.charged, c.transaction_id)),
  borne as (
    select o.bucket, o.member_id, o.programme_id, o.partner_id, o.contract_id, o.charged,
           least(o.still, d.owed - (sum(o.still) over latest_first - o.still)) as points
      from overdrawn o
      join due d on d.bucket = o.bucket and d.member_id = o.member_id and d.programme_id = o.programme_id
    window latest_first as (
      partition by o.bucket, o.member_id, o.programme_id
          order by o.posted_at desc, o.partner_id, o.contract_id desc, o.charged desc, o.transaction_id desc)),
  placed as (
    select b.bucket, b.member_id, b.programme_id, b.partner_id, b.contract_id, b.charged, sum(b.points)::bigint as points
      from borne b
     where b.points > 0
     group by 1, 2, 3, 4, 5, 6),
  compared as materialized (
    select bucket, member_id, programme_id, partner_id, contract_id, charged,
           coalesce(n.points, 0) as points, coalesce(d.points, 0) as before, coalesce(d.fresh, false) as fresh
      from placed n
      full join (
        select b.*
          from due u
          join public.debt b on b.bucket = u.bucket and b.member_id = u.member_id and b.programme_id = u.programme_id) d
     using (bucket, member_id, programme_id, partner_id, contract_id, charged)),
  gone as (
    delete from public.debt d
     using compared c
     where c.points = 0
       and (d.bucket, d.member_id, d.programme_id, d.partner_id, d.contract_id, d.charged)
         = (c.bucket, c.member_id, c.programme_id, c.partner_id, c.contract_id, c.charged)),
  kept as (
    insert into public.debt (bucket, member_id, programme_id, partner_id, contract_id, charged, points, fresh)
    select c.bucket, c.member_id, c.programme_id, c.partner_id, c.contract_id, c.charged, c.points, false
      from compared c
     where c.points > 0 and (c.points <> c.before or c.fresh)
    on conflict (bucket, member_id, programme_id, partner_id, contract_id, charged)
      do update set points = excluded.points, fresh = false),
  moved as (
    insert into public.debt_moved (partner_id, freed)
    select c.partner_id, sum((c.before - c.points) * k.issue_price * 100)
      from compared c
      join public.contract k on k.contract_id = c.contract_id
     where c.charged and c.points <> c.before
     group by c.partner_id)
  select count(*) into changed from compared c where c.points <> c.before;
end $$;

-- Deals a partner's credit by its debts that were placed anew.
create function deal_moved_debts(of_partner uuid) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp
set lock_timeout = '2s' as $$
declare
  freed_now numeric;
begin
  with gone as (delete from public.debt_moved m where m.partner_id = of_partner returning m.freed)
  select sum(g.freed) into freed_now from gone g;
  if freed_now <> 0 then
    perform public.deal_credit(of_partner, freed_now);
  end if;
end $$;
revoke execute on function place_debts, deal_moved_debts from public;
grant execute on function place_debts, deal_moved_debts to gateway_poster;

do $$ begin
  perform public.place_debts(-1, '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 2147483647);
  perform public.deal_moved_debts(m.partner_id) from (select distinct partner_id from public.debt_moved order by 1) m;
end $$;
