-- depends: 0030_exchange
-- Fewer rows a movement (decision 0022). A transaction of one entry carries it in its own row, and a receipt is unique
-- among the purchases themselves: a purchase is three rows in the books instead of five. What is there stays where it lies.

-- The entry of a transaction that has one only; null where it has none, or several.
alter table transaction
  add column programme_id uuid,
  add column account text check (account in ('funder', 'redeemer', 'adjustments')),
  add column contract_id uuid,
  add column points bigint check (points <> 0),
  add constraint transaction_entry_whole
    check (num_nulls(programme_id, account, contract_id, points) = case when partner_id is null or points is null then 4 else 0 end);

-- The entries of transactions that have several, and those from before.
alter table entry rename to further_entry;
alter table further_entry rename constraint entry_pkey to further_entry_pkey;

-- Every entry, wherever it lies.
create view entry with (security_invoker = true) as
select bucket, transaction_id, 1::smallint as ordinal, kind, member_id, programme_id, account, partner_id, contract_id,
       points, period
  from transaction
 where points is not null
union all
select bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id, contract_id, points, period
  from further_entry;
grant select on entry to gateway_app, gateway_reader;

-- As before, over that view.
create or replace view sealed_contents with (security_invoker = true) as
select t.bucket, t.transaction_id,
       '{"entries":['
       || coalesce((select string_agg('{"account":"' || e.account || '","contract":"' || e.contract_id
                                      || '","partner":"' || e.partner_id || '","points":' || e.points
                                      || ',"programme":"' || e.programme_id || '"}', ',' order by e.ordinal)
                      from entry e
                     where e.bucket = t.bucket and e.transaction_id = t.transaction_id), '')
       || '],"kind":"' || t.kind
       || '","member":"' || encode(sha256(uuid_send(t.transaction_id) || uuid_send(t.member_id)), 'hex')
       || '","membership":' || coalesce('"' || t.membership_id || '"', 'null')
       || ',"occurred_at":"' || to_char(t.occurred_at at time zone 'UTC',
            case when date_trunc('second', t.occurred_at) = t.occurred_at then 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'
                 else 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"' end)
       || '","partner":' || coalesce('"' || t.partner_id || '"', 'null')
       || ',"period":"' || to_char(t.period, 'YYYY-MM-DD')
       || '","posted_at":"' || to_char(t.posted_at at time zone 'UTC',
            case when date_trunc('second', t.posted_at) = t.posted_at then 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'
                 else 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"' end)
       || '","transaction":"' || t.transaction_id || '"}' as content
  from transaction t;

-- Functions that write several entries a transaction, and read these again, find them where they lie now; they are the same
-- otherwise.
do $$
declare
  writer regprocedure;
begin
  foreach writer in array array['expire_lots', 'post_conversion', 'post_transfer']::regproc[]::regprocedure[] loop
    execute replace(pg_get_functiondef(writer), ' public.entry ', ' public.further_entry ');
  end loop;
end $$;

-- A page that is filled beyond this is tidied whenever it is touched, which costs the more the more rows are on it.
alter table wallet set (fillfactor = 50);
alter table lot set (fillfactor = 50);

create unique index purchase_receipt on purchase (partner_id, receipt);
drop table receipt;

-- What follows takes the items of a batch by their number from its arrays: reading twelve arrays with `unnest` costs four
-- times as much.

-- What earlier answers say of each item: 'post' if its key is new, 'replay' if it was answered, else a refusal.
create or replace function look_keys_up(
  owners uuid[], term smallint[], keys text[], digests bytea[], buckets smallint[], periods date[]
) returns text[]
language plpgsql volatile as $$
begin
  if array_position(periods, null) is null and not exists (
       select from generate_subscripts(keys, 1) n
         join public.idempotency f on f.owner_id = owners[term[n]] and f.key = keys[n]) then
    return array_fill('post'::text, array[cardinality(keys)]);
  end if;
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

-- Refuse the items whose receipt its partner has posted. The caller never has two items of one receipt.
create function refuse_known_receipts(partners uuid[], term smallint[], receipts text[], verdicts text[]) returns text[]
language plpgsql stable as $$
begin
  if not exists (
       select from generate_subscripts(receipts, 1) n
         join public.purchase p on p.partner_id = partners[term[n]] and p.receipt = receipts[n]
        where verdicts[n] = 'post') then
    return verdicts;
  end if;
  return (select array_agg(
           case when verdicts[n] = 'post' and p.transaction_id is not null then 'RECEIPT_ALREADY_POSTED' else verdicts[n] end
           order by n)
    from generate_subscripts(receipts, 1) n
    left join public.purchase p on p.partner_id = partners[term[n]] and p.receipt = receipts[n]);
end $$;
revoke execute on function refuse_known_receipts from public;

-- Write what is posted into the books: each item a transaction, with its entry between its member's wallet and the
-- `of_account` of its term's partner, and the batch's sums. `sign` says which way the points go: 1 to the member, -1
-- from it. An item without points has a transaction and no entry.
create or replace function journal(
  at timestamptz, of_kind text, of_account text, sign int, partners uuid[], programmes uuid[], contracts uuid[],
  months date[], periods date[], term smallint[], buckets smallint[], transactions uuid[], members uuid[],
  memberships uuid[], occurred timestamptz[], points bigint[], amounts bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
begin
  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period, programme_id, account, contract_id, points)
  select buckets[n], transactions[n], of_kind, members[n], memberships[n], partners[term[n]], occurred[n], at,
         periods[term[n]], case when periods[term[n]] <> months[term[n]] then months[term[n]] end,
         case when points[n] > 0 then programmes[term[n]] end, case when points[n] > 0 then of_account end,
         case when points[n] > 0 then contracts[term[n]] end, case when points[n] > 0 then sign * points[n] end
    from generate_subscripts(term, 1) n
   where verdicts[n] = 'post';

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), periods[s.term], of_kind, programmes[s.term], of_account, partners[s.term], contracts[s.term],
         sign * s.points, s.transactions, s.amount
    from (select term[n] as term, sum(points[n]) as points, count(*) as transactions, coalesce(sum(amounts[n]), 0) as amount
            from generate_subscripts(term, 1) n
           where verdicts[n] = 'post'
           group by 1) s;
end $$;

-- Keep the first answer of each new key, note the batch in the outbox, and answer. What else a posted batch of one moved
-- is noted with it.
create or replace function answer(
  at timestamptz, of_kind text, owners uuid[], term smallint[], keys text[], digests bytea[], buckets smallint[],
  members uuid[], transactions uuid[], verdicts text[], periods date[], also_members uuid[] default '{}',
  also_transactions uuid[] default '{}', out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile as $$
begin
  answers := verdicts;
  postings := periods;

  insert into public.idempotency (owner_id, key, bucket, digest, transaction_id, refusal, answered_at)
  select owners[term[n]], keys[n], buckets[n], digests[n],
         case when verdicts[n] = 'post' then transactions[n] end,
         case when verdicts[n] <> 'post' then verdicts[n] end,
         at
    from generate_subscripts(term, 1) n
   where verdicts[n] not in ('replay', 'IDEMPOTENCY_KEY_REUSED', 'STALE', 'PERIOD_NOT_OPEN', 'CREDIT_SHORT');

  if 'post' = any(verdicts) then
    insert into public.outbox (kind, posted_at, members, transactions)
    select of_kind, at, array_agg(members[n] order by n) || also_members, array_agg(transactions[n] order by n) || also_transactions
      from generate_subscripts(term, 1) n
     where verdicts[n] = 'post';
  end if;

  if 'replay' = any(verdicts) then
    select array_agg(coalesce(k.refusal, verdicts[n]) order by n), array_agg(k.transaction_id order by n)
      into answers, firsts
      from generate_subscripts(term, 1) n
      left join public.idempotency k
        on verdicts[n] = 'replay' and k.owner_id = owners[term[n]] and k.key = keys[n] and k.bucket = buckets[n];
  end if;
end $$;

-- Purchases: member +n, funder -n. Points go into the lot of (funder, contract, expiry day), at once or pending until
-- `maturities`; what the member owes is repaid first, in the order of the batch.
--
-- Nothing but a full wallet makes a purchase depend on what the wallet holds, so wallets are locked by adding to them.
-- A batch that would fill one posts nothing and asks (LG002) to be called again with `careful`, which locks first and
-- refuses one by one. A receipt or a key that another batch posts at this very moment fails on its unique index, and the
-- batch is posted again.
create or replace function post_earnings(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], currencies text[], months date[], expiries date[],
  maturities date[], prices numeric[], term smallint[], keys text[], digests bytea[], buckets smallint[], members uuid[],
  memberships uuid[], transactions uuid[], occurred timestamptz[], points bigint[], receipts text[], stores uuid[],
  amounts bigint[], lines text[], slot smallint, dealing boolean, careful boolean,
  out answers text[], out firsts uuid[], out postings date[]
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_hashagg = off as $$
declare
  periods date[] := public.periods_of(months);
  on_credit uuid[] := array(select c.partner_id from public.partner_credit c where c.partner_id = any(partners));
  verdicts text[];
  owing boolean;
begin
  if careful then
    perform public.lock_wallets(buckets, members, public.by_term(programmes, term));
  end if;
  verdicts := public.look_keys_up(partners, term, keys, digests, buckets, periods);
  verdicts := public.refuse_known_receipts(partners, term, receipts, verdicts);
  if careful then
    verdicts := public.refuse_what_overflows(programmes, term, buckets, members, points, verdicts);
  end if;
  if cardinality(on_credit) > 0 then
    verdicts := public.take_credit(partners, prices, term, points, verdicts, slot, dealing);
  end if;

  owing := public.fill_wallets(programmes, maturities, term, buckets, members, points, verdicts);
  perform public.journal(at, 'earning', 'funder', 1, partners, programmes, contracts, months, periods, term, buckets,
                         transactions, members, memberships, occurred, points, amounts, verdicts);

  insert into public.purchase (bucket, transaction_id, member_id, membership_id, partner_id, programme_id, contract_id,
                               store_id, receipt, currency, amount_minor, points, expires_on, lines, charged)
  select buckets[n], transactions[n], members[n], memberships[n], partners[term[n]], programmes[term[n]],
         contracts[term[n]], stores[n], receipts[n], currencies[term[n]], amounts[n], points[n], expiries[term[n]],
         lines[n]::jsonb, partners[term[n]] = any(on_credit)
    from generate_subscripts(term, 1) n
   where verdicts[n] = 'post';

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
create or replace function fill_wallets(
  programmes uuid[], maturities date[], term smallint[], buckets smallint[], members uuid[], points bigint[],
  verdicts text[], out owing boolean
) returns boolean
language plpgsql volatile as $$
declare
  wanted bigint;
  fullest bigint;
  filled_members uuid[];
  filled_programmes uuid[];
begin
  with s as materialized (
    select buckets[n] as bucket, members[n] as member, programmes[term[n]] as programme,
           coalesce(sum(points[n]) filter (where maturities[term[n]] is null), 0)::bigint as now,
           coalesce(sum(points[n]) filter (where maturities[term[n]] is not null), 0)::bigint as later
      from generate_subscripts(term, 1) n
     where verdicts[n] = 'post'
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
      select buckets[n], members[n], programmes[term[n]],
             coalesce(sum(points[n]) filter (where maturities[term[n]] is null), 0),
             coalesce(sum(points[n]) filter (where maturities[term[n]] is not null), 0)
        from generate_subscripts(term, 1) n
       where verdicts[n] = 'post'
         and (members[n], programmes[term[n]]) not in (
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
create or replace function fill_lots(
  at timestamptz, partners uuid[], programmes uuid[], contracts uuid[], expiries date[], maturities date[], term smallint[],
  buckets smallint[], members uuid[], transactions uuid[], points bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
declare
  wanted bigint;
  filled bigint;
begin
  with s as materialized (
    select buckets[n] as bucket, members[n] as member, programmes[term[n]] as programme, expiries[term[n]] as expires_on,
           partners[term[n]] as funder, contracts[term[n]] as contract, sum(points[n])::bigint as points,
           coalesce(sum(points[n]) filter (where maturities[term[n]] is not null), 0)::bigint as later
      from generate_subscripts(term, 1) n
     where verdicts[n] = 'post' and points[n] > 0
     group by 1, 2, 3, 4, 5, 6),
  filled as (
    update public.lot l
       set original = l.original + s.points,
           remaining = l.remaining + s.points - s.later,
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
      from (select buckets[n] as bucket, members[n] as member, transactions[n] as transaction, points[n] as points,
                   programmes[term[n]] as programme, partners[term[n]] as funder, contracts[term[n]] as contract,
                   expiries[term[n]] as expires_on, maturities[term[n]] as matures_on
              from generate_subscripts(term, 1) n
             where verdicts[n] = 'post' and points[n] > 0
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
    select distinct programmes[term[n]], expiries[term[n]], buckets[n], members[n]
      from generate_subscripts(term, 1) n
     where verdicts[n] = 'post' and points[n] > 0 and expiries[term[n]] < 'infinity'
     order by 1, 2, 3, 4
    on conflict do nothing;
  end if;

  if exists (select from unnest(maturities) m where m is not null) then
    insert into public.maturing (bucket, transaction_id, lot_id, member_id, programme_id, points, matures_on)
    select s.bucket, s.transaction, l.lot_id, s.member, s.programme, s.points, s.matures_on
      from (select buckets[n] as bucket, members[n] as member, transactions[n] as transaction, points[n] as points,
                   programmes[term[n]] as programme, partners[term[n]] as funder, contracts[term[n]] as contract,
                   expiries[term[n]] as expires_on, maturities[term[n]] as matures_on
              from generate_subscripts(term, 1) n
             where verdicts[n] = 'post' and points[n] > 0 and maturities[term[n]] is not null
            offset 0) s
      join public.lot l
        on l.bucket = s.bucket and l.member_id = s.member and l.programme_id = s.programme
       and l.expires_on = s.expires_on and l.funder_id = s.funder and l.contract_id = s.contract;
  end if;
end $$;
