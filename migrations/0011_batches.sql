-- depends: 0010_strength
-- What posting functions share, made over. A batch comes as parallel arrays, one element an item; what many items share
-- (partner, programme, contract, dates) comes once, as terms, and `term` numbers them from 1. The answer is one row:
-- a verdict an item ('post', 'replay' or a refusal), the first answers where keys were repeated, and the period that
-- each term posts to.
--
-- Helpers are in PL/pgSQL where it keeps their plans from call to call.

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
-- batches never wait for each other in a circle. Answers what the fullest of them holds.
drop function lock_wallets;
create function lock_wallets(buckets smallint[], members uuid[], programmes uuid[], out fullest bigint) returns bigint
language plpgsql volatile as $$
declare
  wanted bigint;
  locked bigint;
begin
  select count(*) into wanted
    from (select distinct bucket, member, programme
            from unnest(buckets, members, programmes) i (bucket, member, programme)) d;
  loop
    select count(*), max(l.holds)
      into locked, fullest
      from (select w.available + w.pending + w.held as holds
              from (select distinct bucket, member, programme
                      from unnest(buckets, members, programmes) u (bucket, member, programme)
                     order by 1, 2, 3) i
              join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
             order by w.bucket, w.member_id, w.programme_id
               for update of w) l;
    exit when locked = wanted;
    insert into public.wallet (bucket, member_id, programme_id)
    select distinct i.bucket, i.member, i.programme
      from unnest(buckets, members, programmes) i (bucket, member, programme)
     order by 1, 2, 3
    on conflict do nothing;
  end loop;
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
  if array_position(periods, null) is null and not exists (
       select from unnest(term, keys) i (term, key)
         join public.idempotency f on f.owner_id = owners[i.term] and f.key = i.key) then
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

-- Write what is posted into the books: each item a transaction, with one entry between its member's wallet and the
-- `of_account` of its term's partner, and the batch's sums. `sign` says which way the points go: 1 to the member, -1
-- from it. An item without points has a transaction and no entry.
create function journal(
  at timestamptz, of_kind text, of_account text, sign int, partners uuid[], programmes uuid[], contracts uuid[],
  months date[], periods date[], term smallint[], buckets smallint[], transactions uuid[], members uuid[],
  memberships uuid[], occurred timestamptz[], points bigint[], amounts bigint[], verdicts text[]
) returns void
language plpgsql volatile as $$
begin
  insert into public.transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at,
                                  posted_at, period, missed_period)
  select i.bucket, i.transaction, of_kind, i.member, i.membership, partners[i.term], i.occurred, at, periods[i.term],
         case when periods[i.term] <> months[i.term] then months[i.term] end
    from unnest(term, buckets, transactions, members, memberships, occurred, verdicts)
         i (term, bucket, transaction, member, membership, occurred, verdict)
   where i.verdict = 'post';

  insert into public.entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id,
                            contract_id, points, period)
  select i.bucket, i.transaction, 1, of_kind, i.member, programmes[i.term], of_account, partners[i.term],
         contracts[i.term], sign * i.points, periods[i.term]
    from unnest(term, buckets, transactions, members, points, verdicts) i (term, bucket, transaction, member, points, verdict)
   where i.verdict = 'post' and i.points > 0;

  insert into public.delta (delta_id, period, kind, programme_id, account, partner_id, contract_id, points,
                            transactions, amount_minor)
  select gen_random_uuid(), periods[s.term], of_kind, programmes[s.term], of_account, partners[s.term], contracts[s.term],
         sign * s.points, s.transactions, s.amount
    from (select i.term, sum(i.points) as points, count(*) as transactions, coalesce(sum(i.amount), 0) as amount
            from unnest(term, points, amounts, verdicts) i (term, points, amount, verdict)
           where i.verdict = 'post'
           group by i.term) s;
end $$;

-- Keep the first answer of each new key, note the batch in the outbox, and answer. What else a posted batch of one moved
-- is noted with it.
create function answer(
  at timestamptz, of_kind text, owners uuid[], term smallint[], keys text[], digests bytea[], buckets smallint[],
  members uuid[], transactions uuid[], verdicts text[], periods date[], also_members uuid[] default '{}',
  also_transactions uuid[] default '{}', out answers text[], out firsts uuid[], out postings date[]
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
    select of_kind, at, array_agg(i.member order by i.n) || also_members, array_agg(i.transaction order by i.n) || also_transactions
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

-- Take chosen points out of what is left of lots, and note which: they are 'spent', 'returned' or 'moved'.
create function take_from_lots(
  of_effect text, buckets smallint[], transactions uuid[], items bigint[], lots uuid[], takes bigint[]
) returns void
language plpgsql volatile as $$
begin
  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  select buckets[t.item], transactions[t.item], t.lot, of_effect, t.points
    from unnest(items, lots, takes) t (item, lot, points);

  update public.lot l
     set remaining = l.remaining - t.points,
         spent = l.spent + case of_effect when 'spent' then t.points else 0 end,
         returned = l.returned + case of_effect when 'returned' then t.points else 0 end,
         moved = l.moved + case of_effect when 'moved' then t.points else 0 end
    from unnest(items, lots, takes) t (item, lot, points)
   where l.bucket = buckets[t.item] and l.lot_id = t.lot;
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

-- Pay some of what one wallet owes out of one of its lots.
create function repay(
  of_bucket smallint, transaction uuid, member uuid, of_programme uuid, lot uuid, of_points bigint
) returns void
language plpgsql volatile as $$
begin
  insert into public.lot_take (bucket, transaction_id, lot_id, effect, points)
  values (of_bucket, transaction, lot, 'repaid', of_points);
  update public.lot l
     set remaining = l.remaining - of_points, returned = l.returned + of_points
   where l.bucket = of_bucket and l.lot_id = lot;
  update public.wallet w
     set available = w.available - of_points, owed = w.owed - of_points
   where w.bucket = of_bucket and w.member_id = member and w.programme_id = of_programme;
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
    perform public.repay(paid.bucket, paid.transaction, paid.member, paid.programme, paid.lot_id, paid.points);
  end loop;
end $$;

-- The most points a wallet can hold: the largest whole number that every JSON reader keeps, 2^53 - 1.
create function most_points() returns bigint
language sql immutable as $$ select 9007199254740991 $$;
