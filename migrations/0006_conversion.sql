-- depends: 0005_returns
-- Conversion into a currency that a partner keeps: an order that is held here, credited there, captured here; or
-- released. Every state is stored before the next step is taken, so a crash at any point resumes.

create table quote (
  bucket smallint not null check (bucket between 0 and 255),
  quote_id uuid not null,
  member_id uuid not null,
  membership_id uuid not null,
  rate_id uuid not null references conversion_rate,
  source_id uuid not null references programme,
  target_id uuid not null references programme,
  take bigint not null check (take > 0),
  give bigint not null check (give > 0),
  quoted_at timestamptz not null,
  expires_at timestamptz not null,
  used boolean not null default false,
  owner_id uuid,
  key text check (length(key) between 1 and 200),
  primary key (bucket, quote_id)
);

create unique index quote_of_key on quote (owner_id, key, bucket) where key is not null;

create table conversion (
  bucket smallint not null check (bucket between 0 and 255),
  conversion_id uuid not null,
  owner_id uuid not null,
  key text not null check (length(key) between 1 and 200),
  digest bytea not null,
  quote_id uuid not null,
  hold_id uuid not null,
  member_id uuid not null,
  membership_id uuid not null,
  partner_id uuid not null references partner,
  contract_id uuid not null references contract,
  source_id uuid not null references programme,
  target_id uuid not null references programme,
  take bigint not null check (take > 0),
  give bigint not null check (give > 0),
  state text not null check (state in ('held', 'credited', 'completed', 'released', 'refused')),
  in_doubt boolean not null default false,
  asking_until timestamptz,
  partner_reference text,
  attempts int not null default 0,
  last_error text,
  occurred_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (bucket, conversion_id),
  unique (owner_id, key, bucket)
);

create index conversion_under_way on conversion (updated_at) where state in ('held', 'credited');

-- Set points aside, first-expiring first; false when there are too few, and then nothing is set aside.
create function place_hold(
  at timestamptz, of_bucket smallint, hold uuid, member uuid, of_programme uuid, partner uuid, on_day date, wanted bigint
) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  perform public.lock_wallets(array[of_bucket], array[member], array[of_programme]);
  if wanted > coalesce((select sum(l.remaining)
                          from public.lots_in_order(of_bucket, member, of_programme, on_day, null) l), 0) then
    return false;
  end if;

  insert into public.hold (bucket, hold_id, member_id, programme_id, partner_id, points, placed_at)
  values (of_bucket, hold, member, of_programme, partner, wanted, at);

  insert into public.hold_lot (bucket, hold_id, lot_id, points)
  select of_bucket, hold, l.lot_id, least(l.remaining, wanted - l.before)
    from public.lots_in_order(of_bucket, member, of_programme, on_day, null) l
   where l.before < wanted;

  update public.lot l
     set remaining = l.remaining - h.points,
         held = l.held + h.points
    from public.hold_lot h
   where h.bucket = of_bucket and h.hold_id = hold and l.bucket = h.bucket and l.lot_id = h.lot_id;

  update public.wallet w
     set available = w.available - wanted,
         held = w.held + wanted
   where w.bucket = of_bucket and w.member_id = member and w.programme_id = of_programme;
  return true;
end $$;

-- Give what a hold set aside back to its lots; false when the hold is no longer open.
create function release_hold(of_bucket smallint, hold uuid) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  h public.hold;
begin
  select * into h from public.hold o where o.bucket = of_bucket and o.hold_id = hold;
  perform public.lock_wallets(array[of_bucket], array[h.member_id], array[h.programme_id]);
  update public.hold o set state = 'released'
   where o.bucket = of_bucket and o.hold_id = hold and o.state = 'open';
  if not found then
    return false;
  end if;

  update public.lot l
     set held = l.held - t.points,
         remaining = l.remaining + t.points
    from public.hold_lot t
   where t.bucket = of_bucket and t.hold_id = hold and l.bucket = t.bucket and l.lot_id = t.lot_id;

  update public.wallet w
     set held = w.held - h.points,
         available = w.available + h.points
   where w.bucket = of_bucket and w.member_id = h.member_id and w.programme_id = h.programme_id;
  return true;
end $$;

-- Capture the hold of a credited order and post the exchange: member -take to exchange(source); exchange(target)
-- gives to the member, whose points in the target are at once in the partner's custody. Both legs or neither.
create function post_conversion(
  at timestamptz, of_bucket smallint, conversion uuid, occurred timestamptz, month date
) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  c public.conversion;
  posting date;
begin
  select * into c from public.conversion o where o.bucket = of_bucket and o.conversion_id = conversion;
  perform public.lock_wallets(array[of_bucket], array[c.member_id], array[c.source_id]);
  select l.posting into posting from public.lock_periods(array[month]) l;
  update public.hold o set state = 'captured'
   where o.bucket = of_bucket and o.hold_id = c.hold_id and o.state = 'open';
  if not found then
    return false;
  end if;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select t.bucket, conversion, t.lot_id, 'spent', t.points
    from public.hold_lot t where t.bucket = of_bucket and t.hold_id = c.hold_id;

  update public.lot l
     set held = l.held - t.points,
         spent = l.spent + t.points
    from public.hold_lot t
   where t.bucket = of_bucket and t.hold_id = c.hold_id and l.bucket = t.bucket and l.lot_id = t.lot_id;

  update public.wallet w
     set held = w.held - c.take
   where w.bucket = of_bucket and w.member_id = c.member_id and w.programme_id = c.source_id;

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  values (of_bucket, conversion, 'conversion', c.member_id, c.membership_id, c.partner_id, occurred, at, posting,
          case when posting <> month then month end);

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  values (of_bucket, conversion, 1, 'conversion', c.member_id, c.source_id, 'exchange', c.partner_id, c.contract_id, -c.take, posting),
         (of_bucket, conversion, 2, 'conversion', c.member_id, c.target_id, 'exchange', c.partner_id, c.contract_id, c.give, posting),
         (of_bucket, conversion, 3, 'conversion', c.member_id, c.target_id, 'custody', c.partner_id, c.contract_id, -c.give, posting);

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), posting, 'conversion', e.programme_id, e.account, e.partner_id, e.contract_id, e.points, 1, 0
    from public.entry e
   where e.bucket = of_bucket and e.transaction_id = conversion;
  return true;
end $$;
