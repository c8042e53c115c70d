-- depends: 0003_ledger
-- The posting functions: the only way into the ledger. Each takes a batch as parallel arrays, one element an item,
-- and answers for every item by itself. Order inside each: lock wallets in sorted order; lock periods and look keys
-- up, in new statements, whose snapshots see what the locks waited for; then write.
--
-- The caller never puts two items with the same key, receipt or (for what takes points) wallet into one batch.
-- Plans are held to index lookups, since a planner that guesses a batch's size wrongly would scan whole tables.

create function new_id_in(bucket smallint) returns uuid
language sql volatile
return encode(
  substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
  || set_byte(set_byte(substring(uuid_send(gen_random_uuid()) from 7), 0,
       (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112), 9, bucket),
  'hex')::uuid;

-- Lock the wallets of a batch, making those that are missing. Sorted order, so that two batches never wait for
-- each other in a circle.
create function lock_wallets(buckets smallint[], members uuid[], programmes uuid[]) returns void
language plpgsql volatile as $$
begin
  insert into public.wallet (bucket, member_id, programme_id)
  select distinct i.bucket, i.member, i.programme
    from unnest(buckets, members, programmes) i (bucket, member, programme)
   where not exists (
     select from public.wallet w
      where w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme)
   order by 1, 2, 3
  on conflict do nothing;

  perform
     from (select distinct bucket, member, programme
             from unnest(buckets, members, programmes) u (bucket, member, programme)) i
     join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
    order by w.bucket, w.member_id, w.programme_id
      for update of w;
end $$;

-- The period that each month posts to: itself if open, else the earliest open one after it. A month without a row
-- is open. The shared locks keep those periods open until the batch commits.
create function lock_periods(months date[]) returns table (month date, posting date)
language plpgsql volatile as $$
declare
  locked date[];
  latest date := (select max(m) from unnest(months) m);
begin
  insert into public.period (month)
  select distinct m
    from unnest(months) m
   where m >= (select c.started_on from public.coalition c)
     and not exists (select from public.period p where p.month = m)
   order by m
  on conflict do nothing;

  loop
    select array_agg(p.month)
      into locked
      from (select q.month
              from public.period q
             where q.state = 'open'
               and q.month >= (select min(m) from unnest(months) m)
             order by q.month
               for share) p;
    exit when latest <= (select max(l) from unnest(locked) l);
    -- The last open month may have begun to close while the lock waited for it: open the one after, and look again.
    insert into public.period (month)
    select greatest(coalesce(max(p.month) + interval '1 month', c.started_on), c.started_on)
      from public.coalition c
      left join public.period p on true
     group by c.started_on
    on conflict do nothing;
  end loop;

  return query
  select m, (select min(l) from unnest(locked) l where l >= m)
    from (select distinct unnest(months)) i (m);
end $$;

-- What earlier answers say of each item: 'post' if its key is new, 'replay' if it was answered, else a refusal.
create function look_keys_up(
  owners uuid[], keys text[], digests bytea[], buckets smallint[], periods date[]
) returns text[]
language sql volatile as $$
  select array_agg(
           case when k.key is null and i.period is null then 'PERIOD_NOT_OPEN'
                when k.key is null then 'post'
                when k.digest <> i.digest or k.bucket <> i.bucket then 'IDEMPOTENCY_KEY_REUSED'
                else 'replay' end
           order by i.n)
    from unnest(owners, keys, digests, buckets, periods) with ordinality i (owner, key, digest, bucket, period, n)
    left join lateral (
      select f.key, f.digest, f.bucket
        from public.idempotency f
       where f.owner_id = i.owner and f.key = i.key
       order by f.bucket = i.bucket desc
       limit 1) k on true
$$;

-- Keep the first answer of each new key, and give every item its answer.
create function answer(
  at timestamptz, owners uuid[], keys text[], digests bytea[], buckets smallint[], transactions uuid[], verdicts text[]
) returns table (n bigint, transaction_id uuid, refusal text, replayed boolean)
language plpgsql volatile as $$
begin
  insert into public.idempotency (owner_id, key, bucket, digest, transaction_id, refusal, answered_at)
  select i.owner, i.key, i.bucket, i.digest,
         case when i.verdict = 'post' then i.transaction end,
         case when i.verdict <> 'post' then i.verdict end,
         at
    from unnest(owners, keys, digests, buckets, transactions, verdicts)
         i (owner, key, digest, bucket, transaction, verdict)
   where i.verdict not in ('replay', 'IDEMPOTENCY_KEY_REUSED', 'STALE', 'PERIOD_NOT_OPEN')
   order by i.owner, i.key;

  return query
  select i.n,
         case i.verdict when 'post' then i.transaction when 'replay' then k.transaction_id end,
         case i.verdict when 'post' then null when 'replay' then k.refusal else i.verdict end,
         i.verdict = 'replay'
    from unnest(owners, keys, buckets, transactions, verdicts) with ordinality
         i (owner, key, bucket, transaction, verdict, n)
    left join public.idempotency k
      on i.verdict = 'replay' and k.owner_id = i.owner and k.key = i.key and k.bucket = i.bucket
   order by i.n;
end $$;

-- Purchases: member +n, funder -n. Points go into the lot of (funder, contract, expiry day); what the member owes
-- is repaid first, in the order of the batch.
create function post_earnings(
  at timestamptz, owners uuid[], keys text[], digests bytea[], buckets smallint[], members uuid[], memberships uuid[],
  programmes uuid[], partners uuid[], contracts uuid[], transactions uuid[], occurred timestamptz[], months date[],
  expiries date[], points bigint[], receipts text[], stores uuid[], amounts bigint[], currencies text[], lines text[],
  explanations text[]
) returns table (n bigint, transaction_id uuid, refusal text, replayed boolean, posting date)
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  periods date[];
  verdicts text[];
begin
  perform public.lock_wallets(buckets, members, programmes);

  select array_agg(l.posting order by i.n) into periods
    from unnest(months) with ordinality i (month, n)
    join public.lock_periods(months) l on l.month = i.month;
  verdicts := public.look_keys_up(owners, keys, digests, buckets, periods);

  insert into public.receipt (partner_id, receipt, bucket, transaction_id)
  select i.partner, i.receipt, i.bucket, i.transaction
    from unnest(partners, receipts, buckets, transactions, verdicts) i (partner, receipt, bucket, transaction, verdict)
   where i.verdict = 'post'
   order by i.partner, i.receipt
  on conflict do nothing;

  select array_agg(
           case when i.verdict = 'post' and r.transaction_id <> i.transaction then 'RECEIPT_ALREADY_POSTED'
                else i.verdict end
           order by i.n)
    into verdicts
    from unnest(partners, receipts, transactions, verdicts) with ordinality i (partner, receipt, transaction, verdict, n)
    left join public.receipt r on r.partner_id = i.partner and r.receipt = i.receipt;

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, 'earning', i.member, i.membership, i.partner, i.occurred, at, i.period,
         case when i.period <> i.month then i.month end
    from unnest(buckets, transactions, members, memberships, partners, occurred, periods, months, verdicts)
         i (bucket, transaction, member, membership, partner, occurred, period, month, verdict)
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, 'earning', i.member, i.programme, 'funder', i.partner, i.contract, i.points, i.period
    from unnest(buckets, transactions, members, programmes, partners, contracts, points, periods, verdicts)
         i (bucket, transaction, member, programme, partner, contract, points, period, verdict)
   where i.verdict = 'post' and i.points > 0;

  insert into public.purchase (bucket, transaction_id, member_id, membership_id, partner_id, programme_id, contract_id,
                               store_id, receipt, currency, amount_minor, points, expires_on, lines, explanation)
  select i.bucket, i.transaction, i.member, i.membership, i.partner, i.programme, i.contract, i.store, i.receipt,
         i.currency, i.amount, i.points, i.expiry, i.lines::jsonb, i.explanation::jsonb
    from unnest(buckets, transactions, members, memberships, partners, programmes, contracts, stores, receipts,
                currencies, amounts, points, expiries, lines, explanations, verdicts)
         i (bucket, transaction, member, membership, partner, programme, contract, store, receipt, currency, amount,
            points, expiry, lines, explanation, verdict)
   where i.verdict = 'post';

  insert into public.lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original,
                          remaining, returned)
  select s.bucket, public.new_id_in(s.bucket), s.member, s.programme, s.partner, s.contract, s.expiry,
         sum(s.points), sum(s.points - s.repaid), sum(s.repaid)
    from public.shares_of_debt(buckets, members, programmes, partners, contracts, transactions, expiries, points, verdicts) s
   group by s.bucket, s.member, s.programme, s.partner, s.contract, s.expiry
  on conflict (bucket, member_id, programme_id, expires_on, funder_id, contract_id) do update
    set original = lot.original + excluded.original,
        remaining = lot.remaining + excluded.remaining,
        returned = lot.returned + excluded.returned;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select s.bucket, s.transaction, l.lot_id, 'repaid', s.repaid
    from public.shares_of_debt(buckets, members, programmes, partners, contracts, transactions, expiries, points, verdicts) s
    join public.lot l
      on l.bucket = s.bucket and l.member_id = s.member and l.programme_id = s.programme
     and l.expires_on = s.expiry and l.funder_id = s.partner and l.contract_id = s.contract
   where s.repaid > 0;

  update public.wallet w
     set available = w.available + s.points - least(s.points, w.owed),
         owed = w.owed - least(s.points, w.owed)
    from (select i.bucket, i.member, i.programme, sum(i.points)::bigint as points
            from unnest(buckets, members, programmes, points, verdicts) i (bucket, member, programme, points, verdict)
           where i.verdict = 'post' and i.points > 0
           group by 1, 2, 3) s
   where w.bucket = s.bucket and w.member_id = s.member and w.programme_id = s.programme;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), i.period, 'earning', i.programme, 'funder', i.partner, i.contract, sum(i.points), count(*),
         sum(i.amount)
    from unnest(periods, programmes, partners, contracts, points, amounts, verdicts)
         i (period, programme, partner, contract, points, amount, verdict)
   where i.verdict = 'post'
   group by i.period, i.programme, i.partner, i.contract;

  return query
  select a.n, a.transaction_id, a.refusal, a.replayed, periods[a.n]
    from public.answer(at, owners, keys, digests, buckets, transactions, verdicts) a;
end $$;

-- How much of each new earning goes to what its wallet owes, earlier items of the batch first.
create function shares_of_debt(
  buckets smallint[], members uuid[], programmes uuid[], partners uuid[], contracts uuid[], transactions uuid[],
  expiries date[], points bigint[], verdicts text[]
) returns table (bucket smallint, member uuid, programme uuid, partner uuid, contract uuid, transaction uuid, expiry date,
                 points bigint, repaid bigint)
language sql stable as $$
  select i.bucket, i.member, i.programme, i.partner, i.contract, i.transaction, i.expiry, i.points,
         least(i.points, greatest(w.owed - (sum(i.points) over wallet_so_far - i.points), 0))::bigint
    from unnest(buckets, members, programmes, partners, contracts, transactions, expiries, points, verdicts)
         with ordinality i (bucket, member, programme, partner, contract, transaction, expiry, points, verdict, n)
    join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
   where i.verdict = 'post' and i.points > 0
  window wallet_so_far as (partition by i.bucket, i.member, i.programme order by i.n)
$$;

-- What can be taken from one wallet on a day, and in which order: first-expiring first; among equals by funder and
-- contract, so that the order never depends on chance. `first_lot` goes before all others.
create function lots_in_order(
  of_bucket smallint, of_member uuid, of_programme uuid, on_day date, first_lot uuid
) returns table (lot_id uuid, remaining bigint, before bigint)
language sql stable as $$
  select l.lot_id, l.remaining,
         (sum(l.remaining) over (order by l.lot_id = first_lot desc nulls last, l.expires_on, l.funder_id, l.contract_id)
          - l.remaining)::bigint
    from public.lot l
   where l.bucket = of_bucket and l.member_id = of_member and l.programme_id = of_programme
     and l.remaining > 0
     and (l.expires_on >= on_day or l.lot_id = first_lot)
$$;

-- Redemptions: member -n, redeemer +n, all or nothing.
create function post_redemptions(
  at timestamptz, owners uuid[], keys text[], digests bytea[], buckets smallint[], members uuid[], memberships uuid[],
  programmes uuid[], partners uuid[], contracts uuid[], transactions uuid[], occurred timestamptz[], months date[],
  days date[], points bigint[], refs text[]
) returns table (n bigint, transaction_id uuid, refusal text, replayed boolean, posting date)
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  periods date[];
  verdicts text[];
begin
  perform public.lock_wallets(buckets, members, programmes);

  select array_agg(l.posting order by i.n) into periods
    from unnest(months) with ordinality i (month, n)
    join public.lock_periods(months) l on l.month = i.month;
  verdicts := public.look_keys_up(owners, keys, digests, buckets, periods);

  select array_agg(
           case when i.verdict = 'post' and i.points > coalesce((
                  select sum(l.remaining)
                    from public.lots_in_order(i.bucket, i.member, i.programme, i.day, null) l), 0)
                then 'INSUFFICIENT_POINTS' else i.verdict end
           order by i.n)
    into verdicts
    from unnest(buckets, members, programmes, days, points, verdicts) with ordinality
         i (bucket, member, programme, day, points, verdict, n);

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select i.bucket, i.transaction, l.lot_id, 'spent', least(l.remaining, i.points - l.before)
    from unnest(buckets, members, programmes, transactions, days, points, verdicts)
         i (bucket, member, programme, transaction, day, points, verdict)
   cross join lateral public.lots_in_order(i.bucket, i.member, i.programme, i.day, null) l
   where i.verdict = 'post' and l.before < i.points;

  update public.lot l
     set remaining = l.remaining - t.points,
         spent = l.spent + t.points
    from unnest(buckets, transactions) i (bucket, transaction)
    join public.lot_take t on t.bucket = i.bucket and t.transaction_id = i.transaction
   where l.bucket = t.bucket and l.lot_id = t.lot_id;

  update public.wallet w
     set available = w.available - i.points
    from unnest(buckets, members, programmes, points, verdicts) i (bucket, member, programme, points, verdict)
   where i.verdict = 'post'
     and w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme;

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, 'redemption', i.member, i.membership, i.partner, i.occurred, at, i.period,
         case when i.period <> i.month then i.month end
    from unnest(buckets, transactions, members, memberships, partners, occurred, periods, months, verdicts)
         i (bucket, transaction, member, membership, partner, occurred, period, month, verdict)
   where i.verdict = 'post';

  insert into public.redemption (bucket, transaction_id, membership_id, partner_id, programme_id, points, reference)
  select i.bucket, i.transaction, i.membership, i.partner, i.programme, i.points, i.ref
    from unnest(buckets, transactions, memberships, partners, programmes, points, refs, verdicts)
         i (bucket, transaction, membership, partner, programme, points, ref, verdict)
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, 'redemption', i.member, i.programme, 'redeemer', i.partner, i.contract, -i.points,
         i.period
    from unnest(buckets, transactions, members, programmes, partners, contracts, points, periods, verdicts)
         i (bucket, transaction, member, programme, partner, contract, points, period, verdict)
   where i.verdict = 'post';

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), i.period, 'redemption', i.programme, 'redeemer', i.partner, i.contract, -sum(i.points),
         count(*), 0
    from unnest(periods, programmes, partners, contracts, points, verdicts)
         i (period, programme, partner, contract, points, verdict)
   where i.verdict = 'post'
   group by i.period, i.programme, i.partner, i.contract;

  return query
  select a.n, a.transaction_id, a.refusal, a.replayed, periods[a.n]
    from public.answer(at, owners, keys, digests, buckets, transactions, verdicts) a;
end $$;
