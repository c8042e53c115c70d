-- depends: 0011_batches
-- Purchases bring points, at once or once they have matured, as far as the partner's credit goes.

-- Purchases: member +n, funder -n. Points go into the lot of (funder, contract, expiry day), at once or pending until
-- `maturities`; what the member owes is repaid first, in the order of the batch.
--
-- Nothing but a full wallet makes a purchase depend on what the wallet holds, so wallets are locked by adding to them.
-- A batch that would fill one posts nothing and asks (LG002) to be called again with `careful`, which locks first and
-- refuses one by one.
create function post_earnings(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], currencies text[], months date[], expiries date[],
  maturities date[], prices numeric[], term smallint[], keys text[], digests bytea[], buckets smallint[], members uuid[],
  memberships uuid[], transactions uuid[], occurred timestamptz[], points bigint[], receipts text[], stores uuid[],
  amounts bigint[], lines text[], slot smallint, dealing boolean, careful boolean,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_hashagg = off as $$
declare
  periods date[] := public.periods_of(months);
  on_credit uuid[] := array(select c.partner_id from public.partner_credit c where c.partner_id = any(partners));
  verdicts text[];
  posted bigint;
  owing boolean;
begin
  if careful then
    perform public.lock_wallets(buckets, members, public.by_term(programmes, term));
  end if;
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  if careful then
    verdicts := public.refuse_what_overflows(programmes, term, buckets, members, points, verdicts);
  end if;

  insert into public.receipt (partner_id, receipt, bucket, transaction_id)
  select partners[i.term], i.receipt, i.bucket, i.transaction
    from unnest(term, receipts, buckets, transactions, verdicts) i (term, receipt, bucket, transaction, verdict)
   where i.verdict = 'post'
   order by 1, 2
  on conflict do nothing;
  get diagnostics posted = row_count;
  if posted < cardinality(array_positions(verdicts, 'post')) then
    select array_agg(
             case when i.verdict = 'post' and r.transaction_id <> i.transaction then 'RECEIPT_ALREADY_POSTED'
                  else i.verdict end
             order by i.n)
      into verdicts
      from unnest(term, receipts, transactions, verdicts) with ordinality i (term, receipt, transaction, verdict, n)
      left join public.receipt r on r.partner_id = partners[i.term] and r.receipt = i.receipt;
  end if;

  if cardinality(on_credit) > 0 then
    verdicts := public.take_credit(partners, prices, term, points, verdicts, slot, dealing);
    delete from public.receipt r
     using unnest(term, receipts, transactions, verdicts) i (term, receipt, transaction, verdict)
     where i.verdict = 'CREDIT_LIMIT_REACHED' and r.partner_id = partners[i.term] and r.receipt = i.receipt
       and r.transaction_id = i.transaction;
  end if;

  owing := public.fill_wallets(programmes, maturities, term, buckets, members, points, verdicts);
  perform public.journal(at, 'earning', 'funder', 1, partners, programmes, contracts, months, periods, term, buckets,
                         transactions, members, memberships, occurred, points, amounts, verdicts);

  insert into public.purchase (bucket, transaction_id, member_id, membership_id, partner_id, programme_id, contract_id,
                               store_id, receipt, currency, amount_minor, points, expires_on, lines, charged)
  select i.bucket, i.transaction, i.member, i.membership, partners[i.term], programmes[i.term], contracts[i.term], i.store,
         i.receipt, currencies[i.term], i.amount, i.points, expiries[i.term], i.lines::jsonb,
         partners[i.term] = any(on_credit)
    from unnest(term, buckets, transactions, members, memberships, stores, receipts, amounts, points, lines, verdicts)
         i (term, bucket, transaction, member, membership, store, receipt, amount, points, lines, verdict)
   where i.verdict = 'post';

  perform public.fill_lots(at, partners, programmes, contracts, expiries, maturities, term, buckets, members, transactions,
                           points, verdicts);
  if owing then
    perform public.repay_from_earnings(programmes, partners, contracts, expiries, maturities, term, buckets, members,
                                       transactions, points, verdicts);
  end if;

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'earning', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
end $$;

-- Add what is posted to its wallets, in sorted order, and make the wallets that are missing. Answers whether any of
-- them owes points.
create function fill_wallets(
  programmes uuid[], maturities date[], term smallint[], buckets smallint[], members uuid[], points bigint[],
  verdicts text[], out owing boolean
) returns boolean
language plpgsql volatile as $$
declare
  wanted bigint;
  fullest bigint;
  filled_members uuid[];
  filled_programmes uuid[];
  made bigint;
begin
  with s as materialized (
    select i.bucket, i.member, programmes[i.term] as programme,
           sum(case when maturities[i.term] is null then i.points else 0 end)::bigint as now,
           sum(case when maturities[i.term] is null then 0 else i.points end)::bigint as later
      from unnest(term, buckets, members, points, verdicts) i (term, bucket, member, points, verdict)
     where i.verdict = 'post'
     group by 1, 2, 3
     order by 1, 2, 3),
  filled as (
    update public.wallet w
       set available = w.available + s.now,
           pending = w.pending + s.later
      from s
     where w.bucket = s.bucket and w.member_id = s.member and w.programme_id = s.programme
    returning w.member_id, w.programme_id, w.owed, w.available + w.pending + w.held as holds)
  select (select count(*) from s), coalesce(bool_or(f.owed > 0), false), coalesce(max(f.holds), 0),
         coalesce(array_agg(f.member_id), '{}'), coalesce(array_agg(f.programme_id), '{}')
    into wanted, owing, fullest, filled_members, filled_programmes
    from filled f;

  if cardinality(filled_members) < wanted then
    with made as (
      insert into public.wallet as w (bucket, member_id, programme_id, available, pending)
      select i.bucket, i.member, programmes[i.term],
             sum(case when maturities[i.term] is null then i.points else 0 end),
             sum(case when maturities[i.term] is null then 0 else i.points end)
        from unnest(term, buckets, members, points, verdicts) i (term, bucket, member, points, verdict)
       where i.verdict = 'post'
         and (i.member, programmes[i.term]) not in (
           select f.member, f.programme from unnest(filled_members, filled_programmes) f (member, programme))
       group by 1, 2, 3
       order by 1, 2, 3
      on conflict (bucket, member_id, programme_id) do update
        set available = w.available + excluded.available,
            pending = w.pending + excluded.pending
      returning w.owed, w.available + w.pending + w.held as holds)
    select owing or coalesce(bool_or(m.owed > 0), false), greatest(fullest, max(m.holds)) into owing, fullest from made m;
  end if;
  if fullest > public.most_points() then
    raise exception 'a wallet would be too full' using errcode = 'LG002';
  end if;
end $$;

-- Add what is posted to its lots, whose wallets are locked, and make the lots that are missing; a new one takes the id
-- of the transaction that opened it.
create function fill_lots(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], expiries date[], maturities date[], term smallint[],
  buckets smallint[], members uuid[], transactions uuid[], points bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
declare
  wanted bigint;
  filled bigint;
begin
  with s as materialized (
    select i.bucket, i.member, programmes[i.term] as programme, expiries[i.term] as expires_on, partners[i.term] as funder,
           contracts[i.term] as contract, sum(i.points)::bigint as points,
           sum(case when maturities[i.term] is null then i.points else 0 end)::bigint as now,
           sum(case when maturities[i.term] is null then 0 else i.points end)::bigint as later
      from unnest(term, buckets, members, points, verdicts) i (term, bucket, member, points, verdict)
     where i.verdict = 'post' and i.points > 0
     group by 1, 2, 3, 4, 5, 6),
  filled as (
    update public.lot l
       set original = l.original + s.points,
           remaining = l.remaining + s.now,
           pending = l.pending + s.later
      from s
     where l.bucket = s.bucket and l.member_id = s.member and l.programme_id = s.programme
       and l.expires_on = s.expires_on and l.funder_id = s.funder and l.contract_id = s.contract
    returning 1)
  select (select count(*) from s), (select count(*) from filled) into wanted, filled;

  if filled < wanted then
    insert into public.lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original,
                            remaining, pending)
    select s.bucket, (array_agg(s.transaction))[1], s.member, s.programme, s.funder, s.contract, s.expires_on, sum(s.points),
           coalesce(sum(s.points) filter (where s.matures_on is null), 0),
           coalesce(sum(s.points) filter (where s.matures_on is not null), 0)
      from (select i.bucket, i.member, i.transaction, i.points, programmes[i.term] as programme, partners[i.term] as funder,
                   contracts[i.term] as contract, expiries[i.term] as expires_on, maturities[i.term] as matures_on
              from unnest(term, buckets, members, transactions, points, verdicts)
                   i (term, bucket, member, transaction, points, verdict)
             where i.verdict = 'post' and i.points > 0
            offset 0) s
     where not exists (
             select from public.lot l
              where l.bucket = s.bucket and l.member_id = s.member and l.programme_id = s.programme
                and l.expires_on = s.expires_on and l.funder_id = s.funder and l.contract_id = s.contract)
     group by s.bucket, s.member, s.programme, s.funder, s.contract, s.expires_on;
  end if;

  -- Expiry looks for lots that are new, and for those again that it has passed.
  if filled < wanted or exists (select from unnest(expiries) e where e <= at::date) then
    insert into public.expiry_due (programme_id, expires_on, bucket, member_id)
    select distinct programmes[i.term], expiries[i.term], i.bucket, i.member
      from unnest(term, buckets, members, points, verdicts) i (term, bucket, member, points, verdict)
     where i.verdict = 'post' and i.points > 0 and expiries[i.term] < 'infinity'
     order by 1, 2, 3, 4
    on conflict do nothing;
  end if;

  if exists (select from unnest(maturities) m where m is not null) then
    insert into public.maturing (bucket, transaction_id, lot_id, member_id, programme_id, points, matures_on)
    select s.bucket, s.transaction, l.lot_id, s.member, s.programme, s.points, s.matures_on
      from (select i.bucket, i.member, i.transaction, i.points, programmes[i.term] as programme, partners[i.term] as funder,
                   contracts[i.term] as contract, expiries[i.term] as expires_on, maturities[i.term] as matures_on
              from unnest(term, buckets, members, transactions, points, verdicts)
                   i (term, bucket, member, transaction, points, verdict)
             where i.verdict = 'post' and i.points > 0 and maturities[i.term] is not null
            offset 0) s
      join public.lot l
        on l.bucket = s.bucket and l.member_id = s.member and l.programme_id = s.programme
       and l.expires_on = s.expires_on and l.funder_id = s.funder and l.contract_id = s.contract;
  end if;
end $$;

-- Refuse the items that would bring their wallet beyond that, earlier items of the batch first.
create function refuse_what_overflows(
  programmes uuid[], term smallint[], buckets smallint[], members uuid[], points bigint[], verdicts text[]
) returns text[]
language plpgsql volatile as $$
declare
  answers text[] := verdicts;
  item record;
begin
  for item in
    select i.n, sum(i.points) over (partition by i.bucket, i.member, programmes[i.term] order by i.n)
                + w.available + w.pending + w.held as holds
      from unnest(term, buckets, members, points, verdicts) with ordinality i (term, bucket, member, points, verdict, n)
      join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = programmes[i.term]
     where i.verdict = 'post'
  loop
    if item.holds > public.most_points() then
      answers[item.n] := 'WALLET_FULL';
    end if;
  end loop;
  return answers;
end $$;

-- How much of each new earning goes to what its wallet owes, earlier items of the batch first.
create function shares_of_debt(
  buckets smallint[], members uuid[], programmes uuid[], term smallint[], points bigint[], verdicts text[]
) returns table (n bigint, repaid bigint)
language sql stable as $$
  select i.n, least(i.points, greatest(w.owed - (sum(i.points) over wallet_so_far - i.points), 0))::bigint
    from unnest(buckets, members, term, points, verdicts) with ordinality i (bucket, member, term, points, verdict, n)
    join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = programmes[i.term]
   where i.verdict = 'post' and i.points > 0 and w.owed > 0
  window wallet_so_far as (partition by i.bucket, i.member, programmes[i.term] order by i.n)
$$;

-- What the members of a batch owe is repaid from their new points, out of the very lots these went to.
create function repay_from_earnings(
  programmes uuid[], partners uuid[], contracts uuid[], expiries date[], maturities date[], term smallint[],
  buckets smallint[], members uuid[], transactions uuid[], points bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
declare
  paid record;
begin
  for paid in
    select i.bucket, i.transaction, i.member, programmes[i.term] as programme, l.lot_id, s.repaid
      from public.shares_of_debt(buckets, members, programmes, term,
             (select array_agg(case when maturities[p.term] is null then p.points else 0 end order by p.n)
                from unnest(term, points) with ordinality p (term, points, n)), verdicts) s
      join unnest(term, buckets, members, transactions) with ordinality i (term, bucket, member, transaction, n) on i.n = s.n
      join public.lot l
        on l.bucket = i.bucket and l.member_id = i.member and l.programme_id = programmes[i.term]
       and l.expires_on = expiries[i.term] and l.funder_id = partners[i.term] and l.contract_id = contracts[i.term]
     where s.repaid > 0
  loop
    perform public.repay(paid.bucket, paid.transaction, paid.member, paid.programme, paid.lot_id, paid.repaid);
  end loop;
end $$;

-- Pending points whose day has come become available, exactly once: a row that matured is not found again. What its
-- wallet owes is repaid at once.
create function post_maturities(at timestamptz, today date, most int) returns table (purchases bigint, points bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  buckets smallint[];
  transactions uuid[];
  members uuid[];
  programmes uuid[];
begin
  select array_agg(m.bucket), array_agg(m.transaction_id), array_agg(m.member_id), array_agg(m.programme_id)
    into buckets, transactions, members, programmes
    from (select d.bucket, d.transaction_id, d.member_id, d.programme_id
            from public.maturing d
           where d.matured_at is null and d.matures_on <= today
           order by d.matures_on, d.bucket, d.transaction_id
           limit most) m;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  perform public.lock_wallets(buckets, members, programmes);

  -- Another process may have matured some of them while the lock waited.
  select array_agg(m.bucket), array_agg(m.transaction_id), array_agg(m.member_id), array_agg(m.programme_id)
    into buckets, transactions, members, programmes
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction and m.matured_at is null;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;

  update public.maturing m set matured_at = at
    from unnest(buckets, transactions) i (bucket, transaction)
   where m.bucket = i.bucket and m.transaction_id = i.transaction;
  update public.lot l
     set pending = l.pending - s.points,
         remaining = l.remaining + s.points
    from (select m.bucket, m.lot_id, sum(m.points - m.cancelled)::bigint as points
            from unnest(buckets, transactions) i (bucket, transaction)
            join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction
           group by 1, 2) s
   where l.bucket = s.bucket and l.lot_id = s.lot_id;
  update public.wallet w
     set pending = w.pending - s.points,
         available = w.available + s.points
    from (select m.bucket, m.member_id, m.programme_id, sum(m.points - m.cancelled)::bigint as points
            from unnest(buckets, transactions) i (bucket, transaction)
            join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction
           group by 1, 2, 3) s
   where w.bucket = s.bucket and w.member_id = s.member_id and w.programme_id = s.programme_id;
  perform public.expect_expiry(s.buckets, s.lots)
     from (select array_agg(m.bucket) as buckets, array_agg(m.lot_id) as lots
             from unnest(buckets, transactions) i (bucket, transaction)
             join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction) s;
  perform public.repay_debts(s.buckets, s.members, s.programmes, s.days, s.transactions)
     from (select array_agg(u.bucket) as buckets, array_agg(u.member) as members, array_agg(u.programme) as programmes,
                  array_agg(today) as days, array_agg(u.transaction) as transactions
             from (select distinct on (i.bucket, i.member, i.programme) i.bucket, i.member, i.programme, i.transaction
                     from unnest(buckets, members, programmes, transactions) i (bucket, member, programme, transaction)
                    order by 1, 2, 3, 4) u) s;

  insert into public.outbox (kind, posted_at, members, transactions) values ('matured', at, members, transactions);
  return query
  select cardinality(buckets)::bigint, sum(m.points - m.cancelled)::bigint
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.maturing m on m.bucket = i.bucket and m.transaction_id = i.transaction;
end $$;
