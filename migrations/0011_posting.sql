-- depends: 0010_strength
-- The posting functions, made over. A batch comes as parallel arrays, one element an item; what many items share
-- (partner, programme, contract, dates) comes once, as terms, and `term` numbers them from 1. The answer is one row:
-- a verdict an item ('post', 'replay' or a refusal), the first answers where keys were repeated, and the period that
-- each term posts to.

drop function post_earnings;
drop function post_redemptions;
drop function post_returns;
drop function post_expiries;
drop function place_hold;
drop function release_hold;
drop function post_conversion;
drop function shares_of_debt;
drop function lots_in_order;
drop function answer;
drop function look_keys_up;

-- Lock the wallets of a batch in sorted order, making those that are missing before that, in sorted order too: two
-- batches never wait for each other in a circle. `known` says that the caller has seen all of them before; it is
-- not believed blindly. Answers whether any of the wallets owes points, and what the fullest of them holds.
drop function lock_wallets;
create function lock_wallets(
  buckets smallint[], members uuid[], programmes uuid[], known boolean default false, out owing boolean, out fullest bigint
) returns record
language plpgsql volatile as $$
declare
  locked bigint;
begin
  if not known then
    insert into public.wallet (bucket, member_id, programme_id)
    select distinct i.bucket, i.member, i.programme
      from unnest(buckets, members, programmes) i (bucket, member, programme)
     where not exists (
       select from public.wallet w
        where w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme)
     order by 1, 2, 3
    on conflict do nothing;
  end if;

  select count(*), bool_or(l.owed > 0), max(l.holds)
    into locked, owing, fullest
    from (select w.owed, w.available + w.pending + w.held as holds
            from (select distinct bucket, member, programme
                    from unnest(buckets, members, programmes) u (bucket, member, programme)) i
            join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
           order by w.bucket, w.member_id, w.programme_id
             for update of w) l;
  if known and locked < (select count(*) from (select distinct bucket, member, programme
                                                 from unnest(buckets, members, programmes) u (bucket, member, programme)) d) then
    raise exception 'a wallet that was said to be known is missing';
  end if;
end $$;

-- The value that each item's term has.
-- (These helpers are in PL/pgSQL because it keeps their plans from call to call.)
create function by_term(of_terms uuid[], term smallint[]) returns uuid[]
language plpgsql immutable as $$
begin
  return (select array_agg(of_terms[t.term] order by t.n) from unnest(term) with ordinality t (term, n));
end $$;
create function by_term(of_terms date[], term smallint[]) returns date[]
language plpgsql immutable as $$
begin
  return (select array_agg(of_terms[t.term] order by t.n) from unnest(term) with ordinality t (term, n));
end $$;

-- The period of each term, with the locks that keep them open.
create function periods_of(months date[]) returns date[]
language plpgsql volatile as $$
begin
  return (select array_agg(l.posting order by m.n)
            from public.lock_periods(months) l
            join unnest(months) with ordinality m (month, n) on m.month = l.month);
end $$;

-- What earlier answers say of each item: 'post' if its key is new, 'replay' if it was answered, else a refusal.
create function look_keys_up(
  owners uuid[], term smallint[], keys text[], digests bytea[], buckets smallint[], periods date[]
) returns text[]
language plpgsql volatile as $$
begin
  return (select array_agg(
           case when k.key is null and periods[i.term] is null then 'PERIOD_NOT_OPEN'
                when k.key is null then 'post'
                when k.digest <> i.digest or k.bucket <> i.bucket then 'IDEMPOTENCY_KEY_REUSED'
                else 'replay' end
           order by i.n)
    from unnest(term, keys, digests, buckets) with ordinality i (term, key, digest, bucket, n)
    left join lateral (
      select f.key, f.digest, f.bucket
        from public.idempotency f
       where f.owner_id = owners[i.term] and f.key = i.key
       order by f.bucket = i.bucket desc
       limit 1) k on true);
end $$;

-- Keep the first answer of each new key, note the batch in the outbox, and answer.
create function answer(
  at timestamptz, of_kind text, owners uuid[], term smallint[], keys text[], digests bytea[], buckets smallint[],
  members uuid[], transactions uuid[], verdicts text[], periods date[],
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile as $$
begin
  answers := verdicts;
  postings := periods;

  insert into public.idempotency (owner_id, key, bucket, digest, transaction_id, refusal, answered_at)
  select owners[i.term], i.key, i.bucket, i.digest,
         case when i.verdict = 'post' then i.transaction end,
         case when i.verdict <> 'post' then i.verdict end,
         at
    from unnest(term, keys, digests, buckets, transactions, verdicts) i (term, key, digest, bucket, transaction, verdict)
   where i.verdict not in ('replay', 'IDEMPOTENCY_KEY_REUSED', 'STALE', 'PERIOD_NOT_OPEN', 'CREDIT_SHORT');

  if 'post' = any(verdicts) then
    insert into public.outbox (kind, posted_at, members, transactions)
    select of_kind, at, array_agg(i.member order by i.n), array_agg(i.transaction order by i.n)
      from unnest(members, transactions, verdicts) with ordinality i (member, transaction, verdict, n)
     where i.verdict = 'post';
  end if;

  if 'replay' = any(verdicts) then
    select array_agg(coalesce(k.refusal, i.verdict) order by i.n), array_agg(k.transaction_id order by i.n)
      into answers, firsts
      from unnest(term, keys, buckets, verdicts) with ordinality i (term, key, bucket, verdict, n)
      left join public.idempotency k
        on i.verdict = 'replay' and k.owner_id = owners[i.term] and k.key = i.key and k.bucket = i.bucket;
  end if;
end $$;

-- What can be taken from one wallet on a day, and in which order: first-expiring first; among equals by funder and
-- contract, so that the order never depends on chance. `first_lot` goes before all others.
create function lots_in_order(
  of_bucket smallint, of_member uuid, of_programme uuid, on_day date, first_lot uuid
) returns table (lot_id uuid, remaining bigint, before bigint, total bigint)
language sql stable as $$
  select l.lot_id, l.remaining,
         (sum(l.remaining) over (order by l.lot_id = first_lot desc nulls last, l.expires_on, l.funder_id, l.contract_id)
          - l.remaining)::bigint,
         (sum(l.remaining) over ())::bigint
    from public.lot l
   where l.bucket = of_bucket and l.member_id = of_member and l.programme_id = of_programme
     and l.remaining > 0
     and (l.expires_on >= on_day or l.lot_id = first_lot)
$$;

-- Which lots each item takes from, all or nothing: `items` numbers the item that `takes` points from each of `lots`.
-- Where `todays` are given, the programme's limits on spending hold, by the ledger's day. The caller never has two
-- items on one wallet.
create function choose_lots(
  buckets smallint[], members uuid[], programmes uuid[], days date[], points bigint[], verdicts text[], todays date[],
  out items bigint[], out lots uuid[], out takes bigint[], out answers text[]
) returns record
language plpgsql volatile as $$
begin
  select array_agg(i.n) filter (where v.verdict = 'post'),
         array_agg(l.lot_id) filter (where v.verdict = 'post'),
         array_agg(least(l.remaining, i.points - l.before)) filter (where v.verdict = 'post'),
         array_agg(v.verdict order by i.n) filter (where coalesce(l.before, 0) = 0)
    into items, lots, takes, answers
    from unnest(buckets, members, programmes, days, points, verdicts, todays) with ordinality
         i (bucket, member, programme, day, points, verdict, today, n)
    join public.programme g on g.programme_id = i.programme
    left join lateral public.lots_in_order(i.bucket, i.member, i.programme, i.day, null) l
      on i.verdict = 'post' and l.before < i.points
   cross join lateral (
     select case when i.verdict <> 'post' then i.verdict
                 when coalesce(l.total, 0) < i.points then 'INSUFFICIENT_POINTS'
                 when i.today is not null and i.points > g.spend_most then 'TRANSACTION_LIMIT_EXCEEDED'
                 when i.today is not null and g.spend_most_a_day < i.points + coalesce((
                        select s.points from public.spending s
                         where s.bucket = i.bucket and s.member_id = i.member and s.programme_id = i.programme
                           and s.day = i.today), 0)
                   then 'DAILY_LIMIT_REACHED'
                 else 'post' end as verdict) v;
end $$;

-- Count what was spent against the day's limit, where there is one.
create function note_spending(buckets smallint[], members uuid[], programmes uuid[], todays date[], points bigint[], verdicts text[])
returns void
language plpgsql volatile as $$
begin
  if exists (select from public.programme g where g.spend_most_a_day is not null and g.programme_id = any(programmes)) then
    insert into public.spending (bucket, member_id, programme_id, day, points)
    select i.bucket, i.member, i.programme, i.today, i.points
      from unnest(buckets, members, programmes, todays, points, verdicts) i (bucket, member, programme, today, points, verdict)
      join public.programme g on g.programme_id = i.programme and g.spend_most_a_day is not null
     where i.verdict = 'post'
     order by 1, 2, 3, 4
    on conflict (bucket, member_id, programme_id, day) do update set points = spending.points + excluded.points;
  end if;
end $$;

-- Expiry looks for lots again that points went back into.
create function expect_expiry(buckets smallint[], lots uuid[]) returns void
language plpgsql volatile as $$
begin
  insert into public.expiry_due (programme_id, expires_on, bucket, member_id)
  select distinct l.programme_id, l.expires_on, l.bucket, l.member_id
    from unnest(buckets, lots) i (bucket, lot)
    join public.lot l on l.bucket = i.bucket and l.lot_id = i.lot
   where l.remaining > 0 and l.expires_on < 'infinity'
   order by 1, 2, 3, 4
  on conflict do nothing;
end $$;

-- Pay what wallets owe out of what has just come in, first-expiring first. `transactions` are those that brought it.
create function repay_debts(buckets smallint[], members uuid[], of_programmes uuid[], days date[], transactions uuid[])
returns void
language plpgsql volatile as $$
declare
  paid record;
begin
  for paid in
    select i.bucket, i.member, i.programme, i.transaction, l.lot_id, least(l.remaining, w.owed - l.before) as points
      from unnest(buckets, members, of_programmes, days, transactions) i (bucket, member, programme, day, transaction)
      join public.wallet w
        on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme and w.owed > 0
     cross join lateral public.lots_in_order(i.bucket, i.member, i.programme, i.day, null) l
     where l.before < w.owed
  loop
    insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
    values (paid.bucket, paid.transaction, paid.lot_id, 'repaid', paid.points);
    update public.lot l
       set remaining = l.remaining - paid.points, returned = l.returned + paid.points
     where l.bucket = paid.bucket and l.lot_id = paid.lot_id;
    update public.wallet w
       set available = w.available - paid.points, owed = w.owed - paid.points
     where w.bucket = paid.bucket and w.member_id = paid.member and w.programme_id = paid.programme;
  end loop;
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

-- Take a batch's charges from its partners' credit: from the slot of the batch, or, with `dealing`, from all that is
-- left, which is then dealt out to the slots anew. Answers the verdicts, where CREDIT_SHORT asks to be called again
-- with `dealing`. Slots are locked in the order of (partner, slot), and all of them only from the start, so two
-- batches never wait for each other in a circle.
create function take_credit(
  partners uuid[], prices numeric[], term smallint[], points bigint[], verdicts text[], of_slot smallint, dealing boolean
) returns text[]
language plpgsql volatile as $$
declare
  charged record;
  answers text[] := verdicts;
  so_far numeric;
  left_over numeric;
  item record;
begin
  perform from public.credit_slot s
    where s.partner_id = any(partners) and (dealing or s.slot = of_slot)
    order by s.partner_id, s.slot
      for update;
  for charged in
    select distinct c.partner_id, c.limit_minor
      from public.partner_credit c where c.partner_id = any(partners) order by 1
  loop
    select case when dealing then charged.limit_minor - sum(s.used) else sum(s.allotted - s.used) end
      into left_over
      from public.credit_slot s
     where s.partner_id = charged.partner_id and (dealing or s.slot = of_slot);
    so_far := 0;
    for item in
      select i.n, i.points * prices[i.term] * 100 as charge
        from unnest(term, points, verdicts) with ordinality i (term, points, verdict, n)
       where i.verdict = 'post' and i.points > 0 and partners[i.term] = charged.partner_id
       order by i.n
    loop
      if item.charge = 0 or so_far + item.charge <= left_over then
        so_far := so_far + item.charge;
      else
        answers[item.n] := case when dealing then 'CREDIT_LIMIT_REACHED' else 'CREDIT_SHORT' end;
      end if;
    end loop;
    if dealing then
      update public.credit_slot s
         set used = s.used + case when s.slot = of_slot then so_far else 0 end
       where s.partner_id = charged.partner_id;
      update public.credit_slot s
         set allotted = s.used + trunc((charged.limit_minor - t.used) / 16, 6)
        from (select sum(u.used) as used from public.credit_slot u where u.partner_id = charged.partner_id) t
       where s.partner_id = charged.partner_id;
    elsif so_far > 0 then
      update public.credit_slot s
         set used = s.used + so_far
       where s.partner_id = charged.partner_id and s.slot = of_slot;
    end if;
  end loop;
  -- Nothing is posted around what asks to be called again: the caller sends the whole batch anew.
  if 'CREDIT_SHORT' = any(answers) then
    raise exception 'credit is short in slot %', of_slot using errcode = 'LG001';
  end if;
  return answers;
end $$;

-- The most points a wallet can hold: the largest whole number that every JSON reader keeps, 2^53 - 1.
create function most_points() returns bigint
language sql immutable as $$ select 9007199254740991 $$;

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

-- Purchases: member +n, funder -n. Points go into the lot of (funder, contract, expiry day), at once or pending until
-- `maturities`; what the member owes is repaid first, in the order of the batch.
create function post_earnings(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], currencies text[], months date[], expiries date[],
  maturities date[], prices numeric[], term smallint[], keys text[], digests bytea[], buckets smallint[], members uuid[],
  memberships uuid[], transactions uuid[], occurred timestamptz[], points bigint[], receipts text[], stores uuid[],
  amounts bigint[], lines text[], slot smallint, dealing boolean, known boolean,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  periods date[];
  verdicts text[];
  wallets record;
  posted bigint;
  on_credit uuid[] := array(select c.partner_id from public.partner_credit c where c.partner_id = any(partners));
begin
  wallets := public.lock_wallets(buckets, members, public.by_term(programmes, term), known);
  periods := public.periods_of(months);
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  if wallets.fullest + (select sum(p) from unnest(points) p) > public.most_points() then
    verdicts := public.refuse_what_overflows(programmes, term, buckets, members, points, verdicts);
  end if;

  insert into public.receipt (partner_id, receipt, bucket, transaction_id)
  select partners[i.term], i.receipt, i.bucket, i.transaction
    from unnest(term, receipts, buckets, transactions, verdicts) i (term, receipt, bucket, transaction, verdict)
   where i.verdict = 'post'
   order by 1, 2
  on conflict do nothing;
  get diagnostics posted = row_count;
  if posted < (select count(*) from unnest(verdicts) v where v = 'post') then
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

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, 'earning', i.member, i.membership, partners[i.term], i.occurred, at, periods[i.term],
         case when periods[i.term] <> months[i.term] then months[i.term] end
    from unnest(term, buckets, transactions, members, memberships, occurred, verdicts)
         i (term, bucket, transaction, member, membership, occurred, verdict)
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, 'earning', i.member, programmes[i.term], 'funder', partners[i.term],
         contracts[i.term], i.points, periods[i.term]
    from unnest(term, buckets, transactions, members, points, verdicts) i (term, bucket, transaction, member, points, verdict)
   where i.verdict = 'post' and i.points > 0;

  insert into public.purchase (bucket, transaction_id, member_id, membership_id, partner_id, programme_id, contract_id,
                               store_id, receipt, currency, amount_minor, points, expires_on, lines, charged)
  select i.bucket, i.transaction, i.member, i.membership, partners[i.term], programmes[i.term], contracts[i.term], i.store,
         i.receipt, currencies[i.term], i.amount, i.points, expiries[i.term], i.lines::jsonb,
         partners[i.term] = any(on_credit)
    from unnest(term, buckets, transactions, members, memberships, stores, receipts, amounts, points, lines, verdicts)
         i (term, bucket, transaction, member, membership, store, receipt, amount, points, lines, verdict)
   where i.verdict = 'post';

  -- A new lot takes the id of the transaction that opened it.
  with credited as (
    insert into public.lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original,
                            remaining, pending)
    select i.bucket, (array_agg(i.transaction))[1], i.member, programmes[i.term], partners[i.term], contracts[i.term],
           expiries[i.term], sum(i.points), sum(case when maturities[i.term] is null then i.points else 0 end),
           sum(case when maturities[i.term] is null then 0 else i.points end)
      from unnest(term, buckets, transactions, members, points, verdicts)
           i (term, bucket, transaction, member, points, verdict)
     where i.verdict = 'post' and i.points > 0
     group by i.bucket, i.member, programmes[i.term], partners[i.term], contracts[i.term], expiries[i.term]
    on conflict (bucket, member_id, programme_id, expires_on, funder_id, contract_id) do update
      set original = lot.original + excluded.original,
          remaining = lot.remaining + excluded.remaining,
          pending = lot.pending + excluded.pending
    returning lot.bucket, lot.member_id, lot.programme_id, lot.expires_on, lot.xmax = 0 as is_new)
  insert into public.expiry_due (programme_id, expires_on, bucket, member_id)
  select distinct c.programme_id, c.expires_on, c.bucket, c.member_id
    from credited c
   where (c.is_new and c.expires_on < 'infinity') or c.expires_on <= at::date
   order by 1, 2, 3, 4
  on conflict do nothing;

  update public.wallet w
     set available = w.available + s.now,
         pending = w.pending + s.later
    from (select i.bucket, i.member, programmes[i.term] as programme,
                 sum(case when maturities[i.term] is null then i.points else 0 end)::bigint as now,
                 sum(case when maturities[i.term] is null then 0 else i.points end)::bigint as later
            from unnest(term, buckets, members, points, verdicts) i (term, bucket, member, points, verdict)
           where i.verdict = 'post' and i.points > 0
           group by 1, 2, 3) s
   where w.bucket = s.bucket and w.member_id = s.member and w.programme_id = s.programme;

  if exists (select from unnest(maturities) m where m is not null) then
    insert into public.maturing (bucket, transaction_id, lot_id, member_id, programme_id, points, matures_on)
    select i.bucket, i.transaction, l.lot_id, i.member, programmes[i.term], i.points, maturities[i.term]
      from unnest(term, buckets, transactions, members, points, verdicts)
           i (term, bucket, transaction, member, points, verdict)
      join public.lot l
        on l.bucket = i.bucket and l.member_id = i.member and l.programme_id = programmes[i.term]
       and l.expires_on = expiries[i.term] and l.funder_id = partners[i.term] and l.contract_id = contracts[i.term]
     where i.verdict = 'post' and i.points > 0 and maturities[i.term] is not null;
  end if;

  if wallets.owing then
    perform public.repay_from_earnings(programmes, partners, contracts, expiries, maturities, term, buckets, members,
                                       transactions, points, verdicts);
  end if;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), periods[s.term], 'earning', programmes[s.term], 'funder', partners[s.term], contracts[s.term],
         s.points, s.transactions, s.amount
    from (select i.term, sum(i.points) as points, count(*) as transactions, sum(i.amount) as amount
            from unnest(term, points, amounts, verdicts) i (term, points, amount, verdict)
           where i.verdict = 'post'
           group by i.term) s;

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'earning', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
end $$;

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
    insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
    values (paid.bucket, paid.transaction, paid.lot_id, 'repaid', paid.repaid);
    update public.lot l
       set remaining = l.remaining - paid.repaid, returned = l.returned + paid.repaid
     where l.bucket = paid.bucket and l.lot_id = paid.lot_id;
    update public.wallet w
       set available = w.available - paid.repaid, owed = w.owed - paid.repaid
     where w.bucket = paid.bucket and w.member_id = paid.member and w.programme_id = paid.programme;
  end loop;
end $$;

-- Redemptions: member -n, redeemer +n, all or nothing.
create function post_redemptions(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], months date[], days date[], todays date[],
  term smallint[],
  keys text[], digests bytea[], buckets smallint[], members uuid[], memberships uuid[], transactions uuid[],
  occurred timestamptz[], points bigint[], refs text[], known boolean,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  of_items uuid[] := public.by_term(programmes, term);
  on_days date[] := public.by_term(days, term);
  now_days date[] := public.by_term(todays, term);
  periods date[];
  verdicts text[];
  chosen record;
begin
  perform public.lock_wallets(buckets, members, of_items, known);
  periods := public.periods_of(months);
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  chosen := public.choose_lots(buckets, members, of_items, on_days, points, verdicts, now_days);
  verdicts := chosen.answers;

  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select buckets[t.item], transactions[t.item], t.lot, 'spent', t.points
    from unnest(chosen.items, chosen.lots, chosen.takes) t (item, lot, points);

  update public.lot l
     set remaining = l.remaining - t.points,
         spent = l.spent + t.points
    from unnest(chosen.items, chosen.lots, chosen.takes) t (item, lot, points)
   where l.bucket = buckets[t.item] and l.lot_id = t.lot;

  update public.wallet w
     set available = w.available - i.points
    from unnest(buckets, members, of_items, points, verdicts) i (bucket, member, programme, points, verdict)
   where i.verdict = 'post'
     and w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme;

  perform public.note_spending(buckets, members, of_items, now_days, points, verdicts);

  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, 'redemption', i.member, i.membership, partners[i.term], i.occurred, at, periods[i.term],
         case when periods[i.term] <> months[i.term] then months[i.term] end
    from unnest(term, buckets, transactions, members, memberships, occurred, verdicts)
         i (term, bucket, transaction, member, membership, occurred, verdict)
   where i.verdict = 'post';

  insert into public.redemption (bucket, transaction_id, membership_id, partner_id, programme_id, points, reference)
  select i.bucket, i.transaction, i.membership, partners[i.term], programmes[i.term], i.points, i.ref
    from unnest(term, buckets, transactions, memberships, points, refs, verdicts)
         i (term, bucket, transaction, membership, points, ref, verdict)
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, 'redemption', i.member, programmes[i.term], 'redeemer', partners[i.term],
         contracts[i.term], -i.points, periods[i.term]
    from unnest(term, buckets, transactions, members, points, verdicts) i (term, bucket, transaction, member, points, verdict)
   where i.verdict = 'post';

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), periods[s.term], 'redemption', programmes[s.term], 'redeemer', partners[s.term],
         contracts[s.term], -s.points, s.transactions, 0
    from (select i.term, sum(i.points) as points, count(*) as transactions
            from unnest(term, points, verdicts) i (term, points, verdict)
           where i.verdict = 'post'
           group by i.term) s;

  select a.answers, a.firsts, a.postings into answers, firsts, postings
    from public.answer(at, 'redemption', partners, term, keys, digests, buckets, members, transactions, verdicts, periods) a;
end $$;
