-- depends: 0015_holds
-- Conversions, whose orders hold what they take until the partner has credited.

-- Set the points of an order aside, and take its key. Answers 'post' or a refusal, and then nothing is set aside.
create function place_hold(
  at timestamptz, owner uuid, key text, digest bytea, conversion uuid, of_bucket smallint, hold uuid, member uuid,
  of_programme uuid, partner uuid, on_day date, today date, wanted bigint
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  chosen record;
begin
  perform public.lock_wallets(array[of_bucket], array[member], array[of_programme]);
  chosen := public.choose_lots(array[of_bucket], array[member], array[of_programme], array[on_day], array[wanted],
                               array['post'], array[today]);
  if chosen.answers[1] = 'post' then
    insert into public.idempotency (owner_id, key, bucket, digest, transaction_id, answered_at)
    values (owner, key, of_bucket, digest, conversion, at)
    on conflict do nothing;
    if exists (select from public.idempotency k
                where k.owner_id = owner and k.key = place_hold.key and k.transaction_id is distinct from conversion) then
      return 'IDEMPOTENCY_KEY_REUSED';
    end if;
    insert into public.hold (bucket, hold_id, member_id, programme_id, partner_id, points, placed_at, day, counted)
    select of_bucket, hold, member, of_programme, partner, wanted, at, today, g.spend_most_a_day is not null
      from public.programme g where g.programme_id = of_programme;
    perform public.reserve_lots(array[of_bucket], array[hold], chosen.items, chosen.lots, chosen.takes);
    update public.wallet w
       set available = w.available - wanted,
           held = w.held + wanted
     where w.bucket = of_bucket and w.member_id = member and w.programme_id = of_programme;
    perform public.note_spending(array[of_bucket], array[member], array[of_programme], array[today], array[wanted], array['post']);
  end if;
  return chosen.answers[1];
end $$;

-- Give the points of an order back; false when its hold is no longer open.
create function release_hold(at timestamptz, of_bucket smallint, hold uuid, today date, month date) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  h public.hold;
begin
  select * into h from public.hold o where o.bucket = of_bucket and o.hold_id = hold;
  perform public.lock_wallets(array[of_bucket], array[h.member_id], array[h.programme_id]);
  if not exists (select from public.hold o where o.bucket = of_bucket and o.hold_id = hold and o.state = 'open') then
    return false;
  end if;
  perform public.give_back_holds(at, array[of_bucket], array[hold], 'released', today, month);
  insert into public.outbox (kind, posted_at, members, transactions) values ('release', at, array[h.member_id], array[hold]);
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
  posting := (public.periods_of(array[month]))[1];
  update public.hold o set state = 'captured', captured = o.points, resolved_at = at
   where o.bucket = of_bucket and o.hold_id = c.hold_id and o.state = 'open';
  if not found then
    return false;
  end if;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select t.bucket, conversion, t.lot_id, 'spent', t.points
    from public.hold_lot t where t.bucket = of_bucket and t.hold_id = c.hold_id;
  update public.hold_lot t set captured = t.points
   where t.bucket = of_bucket and t.hold_id = c.hold_id;
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
  insert into public.outbox (kind, posted_at, members, transactions)
  values ('conversion', at, array[c.member_id], array[conversion]);
  return true;
end $$;
