-- depends: 0038_receipts
-- What members' apps read again and again is read by functions that say who reads and read in one statement, where any other
-- query needs a transaction around it, and two more round trips (decision 0026). They run with the rights of the role that
-- calls them, so the wall stands behind them as behind everything.

-- Who reads, until the statement ends.
create function read_as(as_partner uuid, as_member uuid) returns void
language plpgsql volatile as $$
begin
  perform set_config('app.partner', coalesce(as_partner::text, ''), true),
          set_config('app.member', coalesce(as_member::text, ''), true);
end $$;

-- Every wallet of the given members.
create function read_wallets(as_partner uuid, as_member uuid, buckets smallint[], members uuid[])
returns table (member_id uuid, programme_id uuid, available bigint, pending bigint, held bigint, owed bigint)
language plpgsql volatile
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_generic_plan as $$
begin
  perform public.read_as(as_partner, as_member);
  return query
  select w.member_id, w.programme_id, w.available, w.pending, w.held, w.owed
    from unnest(buckets, members) i (bucket, member)
    join public.wallet w on w.bucket = i.bucket and w.member_id = i.member
   order by w.member_id, w.programme_id;
end $$;

-- A member's transactions, newest first, from a cursor on, those of one partner where one is named; of a purchase also when
-- its points become available and what came back of it.
create function read_activity(
  as_partner uuid, as_member uuid, of_bucket smallint, of_member uuid, at_partner uuid, before_at timestamptz, before_id uuid,
  most bigint
) returns table (
  transaction_id uuid, kind text, member_id uuid, membership_id uuid, partner_id uuid, programme_id uuid, contract_id uuid,
  store_id uuid, receipt text, currency text, amount_minor bigint, points bigint, expires_on date, lines text,
  occurred_at timestamptz, posted_at timestamptz, period date, missed_period date, matures_on date, returned_minor bigint,
  returned_points bigint, returns int
)
language plpgsql volatile
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_generic_plan as $$
begin
  perform public.read_as(as_partner, as_member);
  return query
  select t.transaction_id, t.kind, t.member_id, t.membership_id, t.partner_id, t.programme_id, t.contract_id, t.store_id,
         t.receipt, t.currency, t.amount_minor, coalesce(t.points, 0), t.expires_on, t.lines::text, t.occurred_at,
         t.posted_at, t.period, t.missed_period, m.matures_on, r.minor, r.points, r.returns
    from (select *
            from public.transaction a
           where a.bucket = of_bucket
             and a.member_id = of_member
             and (at_partner is null or a.partner_id = at_partner)
             and (a.occurred_at, a.transaction_id) < (before_at, before_id)
           order by a.occurred_at desc, a.transaction_id desc
           limit most) t
    left join public.maturing m on m.bucket = t.bucket and m.transaction_id = t.transaction_id
   cross join lateral (
      select coalesce(sum(v.amount_minor), 0)::bigint as minor, coalesce(sum(v.points), 0)::bigint as points,
             count(*)::int as returns
        from public.purchase_return v
       where t.kind = 'earning' and v.bucket = t.bucket and v.purchase_id = t.transaction_id) r
   order by t.occurred_at desc, t.transaction_id desc;
end $$;

revoke execute on function read_as, read_wallets, read_activity from public;
grant execute on function read_as, read_wallets, read_activity to gateway_app, gateway_reader;
