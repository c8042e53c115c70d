-- depends: 0016_orders
-- Transfers between members, and adjustments by operators.

-- One transfer: member -n, transit +n; other member +n, transit -n. The lots move with their expiry day, funder and
-- contract. Answers 'post', 'replay' with what was posted first, or a refusal.
create function post_transfer(
  at timestamptz, owner uuid, key text, digest bytea, of_programme uuid, member uuid, transaction uuid, other uuid,
  other_transaction uuid, occurred timestamptz, month date, day date, wanted bigint, message text,
  out verdict text, out posted uuid
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  of_bucket smallint := get_byte(uuid_send(member), 15);
  other_bucket smallint := get_byte(uuid_send(other), 15);
  posting date;
  chosen record;
begin
  perform public.lock_wallets(array[of_bucket, other_bucket], array[member, other], array[of_programme, of_programme]);
  posting := (public.periods_of(array[month]))[1];
  verdict := (public.look_keys_up(array[owner], array[1::smallint], array[key], array[digest], array[of_bucket], array[posting]))[1];
  if verdict = 'post' and not (select g.transferable from public.programme g where g.programme_id = of_programme) then
    verdict := 'NOT_ALLOWED';
  end if;
  chosen := public.choose_lots(array[of_bucket], array[member], array[of_programme], array[day], array[wanted],
                               array[verdict], array[day]);
  verdict := chosen.answers[1];
  if verdict = 'post' and wanted + (select w.available + w.pending + w.held from public.wallet w
                                     where w.bucket = other_bucket and w.member_id = other and w.programme_id = of_programme)
                          > public.most_points() then
    verdict := 'WALLET_FULL';
  end if;

  if verdict = 'post' then
    perform public.take_from_lots('moved', array[of_bucket], array[transaction], chosen.items, chosen.lots, chosen.takes);
    insert into public.lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original, remaining)
    select other_bucket, public.new_id_in(other_bucket), other, of_programme, l.funder_id, l.contract_id, l.expires_on,
           t.points, t.points
      from unnest(chosen.lots, chosen.takes) t (lot, points)
      join public.lot l on l.bucket = of_bucket and l.lot_id = t.lot
    on conflict (bucket, member_id, programme_id, expires_on, funder_id, contract_id) do update
      set original = lot.original + excluded.original,
          remaining = lot.remaining + excluded.remaining;
    insert into public.expiry_due (programme_id, expires_on, bucket, member_id)
    select distinct of_programme, l.expires_on, other_bucket, other
      from unnest(chosen.lots) t (lot)
      join public.lot l on l.bucket = of_bucket and l.lot_id = t.lot
     where l.expires_on < 'infinity'
    on conflict do nothing;
    update public.wallet w set available = w.available - wanted
     where w.bucket = of_bucket and w.member_id = member and w.programme_id = of_programme;
    update public.wallet w set available = w.available + wanted
     where w.bucket = other_bucket and w.member_id = other and w.programme_id = of_programme;
    perform public.note_spending(array[of_bucket], array[member], array[of_programme], array[day], array[wanted], array['post']);

    insert into public.transaction (bucket, transaction_id, kind, member_id, occurred_at, posted_at, period, missed_period)
    values (of_bucket, transaction, 'transfer', member, occurred, at, posting, case when posting <> month then month end),
           (other_bucket, other_transaction, 'transfer', other, occurred, at, posting,
            case when posting <> month then month end);
    insert into public.transfer (bucket, transaction_id, direction, other_member_id, other_transaction_id, programme_id,
                                 points, message)
    values (of_bucket, transaction, 'out', other, other_transaction, of_programme, wanted, message),
           (other_bucket, other_transaction, 'in', member, transaction, of_programme, wanted, message);
    -- An entry a lot, so that what moved stays with its funder and contract in the books too.
    insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                              contract_id, points, period)
    select s.bucket, s.transaction, row_number() over (partition by s.bucket, s.transaction order by l.funder_id, l.contract_id),
           'transfer', s.member, of_programme, 'transit', l.funder_id, l.contract_id, s.sign * sum(t.points), posting
      from unnest(chosen.lots, chosen.takes) t (lot, points)
      join public.lot l on l.bucket = of_bucket and l.lot_id = t.lot
     cross join (values (of_bucket, transaction, member, -1), (other_bucket, other_transaction, other, 1))
           s (bucket, transaction, member, sign)
     group by s.bucket, s.transaction, s.member, s.sign, l.funder_id, l.contract_id;
    insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                              transactions, amount_minor)
    select gen_random_uuid(), posting, 'transfer', of_programme, 'transit', l.funder_id, l.contract_id, 0, 1, 0
      from unnest(chosen.lots) t (lot)
      join public.lot l on l.bucket = of_bucket and l.lot_id = t.lot
     group by l.funder_id, l.contract_id;
    perform public.repay_debts(array[other_bucket], array[other], array[of_programme], array[day], array[other_transaction]);
  end if;

  select a.answers[1], coalesce(a.firsts[1], transaction) into verdict, posted
    from public.answer(at, 'transfer', array[owner], array[1::smallint], array[key], array[digest], array[of_bucket],
                       array[member], array[transaction], array[verdict], array[posting], array[other],
                       array[other_transaction]) a;
end $$;

-- Post an adjustment that was approved or needs no approval: member +-n, adjustments -+n on behalf of a partner.
-- Taking more than is available is refused: nobody goes below zero. Answers 'post' or a refusal.
create function post_adjustment(at timestamptz, of_bucket smallint, adjustment uuid, month date) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  a public.adjustment;
  posting date;
  chosen record;
  fullest bigint;
begin
  select * into a from public.adjustment x where x.bucket = of_bucket and x.adjustment_id = adjustment;
  fullest := public.lock_wallets(array[of_bucket], array[a.member_id], array[a.programme_id]);
  posting := (public.periods_of(array[month]))[1];
  if posting is null then
    return 'PERIOD_NOT_OPEN';
  elsif fullest + a.points > public.most_points() then
    return 'WALLET_FULL';
  end if;
  if exists (select from public.transaction t where t.bucket = of_bucket and t.transaction_id = adjustment) then
    return 'post';
  end if;

  if a.points > 0 then
    insert into public.lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original, remaining)
    values (of_bucket, adjustment, a.member_id, a.programme_id, a.partner_id, a.contract_id, a.expires_on, a.points, a.points)
    on conflict (bucket, member_id, programme_id, expires_on, funder_id, contract_id) do update
      set original = lot.original + excluded.original,
          remaining = lot.remaining + excluded.remaining;
    if a.expires_on < 'infinity' then
      insert into public.expiry_due (programme_id, expires_on, bucket, member_id)
      values (a.programme_id, a.expires_on, of_bucket, a.member_id)
      on conflict do nothing;
    end if;
  else
    chosen := public.choose_lots(array[of_bucket], array[a.member_id], array[a.programme_id], array[a.day], array[-a.points],
                                 array['post'], array[null]::date[]);
    if chosen.answers[1] <> 'post' then
      return chosen.answers[1];
    end if;
    perform public.take_from_lots('moved', array[of_bucket], array[adjustment], chosen.items, chosen.lots, chosen.takes);
  end if;
  update public.wallet w set available = w.available + a.points
   where w.bucket = of_bucket and w.member_id = a.member_id and w.programme_id = a.programme_id;

  perform public.journal(
    at, 'adjustment', 'adjustments', sign(a.points)::int, array[a.partner_id], array[a.programme_id], array[a.contract_id],
    array[month], array[posting], array[1::smallint], array[of_bucket], array[adjustment], array[a.member_id],
    array[null]::uuid[], array[a.occurred_at], array[abs(a.points)], null, array['post']);
  perform public.repay_debts(array[of_bucket], array[a.member_id], array[a.programme_id], array[a.day], array[adjustment]);
  insert into public.outbox (kind, posted_at, members, transactions)
  values ('adjustment', at, array[a.member_id], array[adjustment]);
  return 'post';
end $$;
