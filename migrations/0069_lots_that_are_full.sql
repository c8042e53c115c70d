-- depends: 0068_wallets_in_one_order
-- A lot counts all that ever came into it, and gifts to and fro count again and again. One that has had more than 2^62 points takes
-- nothing more: what would come into it is refused as by a full wallet, item by item, before a sum runs over.

create function most_counted() returns bigint language sql immutable as $$ select 4611686018427387904 $$;
revoke execute on function most_counted from public;

drop function refuse_what_overflows;
-- Refuse the items that would bring their wallet beyond what it can hold, or come into a lot that is full; what is refused takes no
-- room from those behind it.
create function refuse_what_overflows(
  programmes uuid[], partners uuid[], contracts uuid[], expiries date[], term smallint[], buckets smallint[], members uuid[],
  points bigint[], verdicts text[]
) returns text[]
language plpgsql volatile as $$
declare
  answers text[] := verdicts;
  item record;
  so_far numeric;
begin
  for item in
    select i.n, i.points, w.available + w.pending + w.held as holds,
           i.points > 0 and coalesce(l.original, 0) > public.most_counted() as into_full_lot,
           lag(row(i.bucket, i.member, programmes[i.term])) over in_order is distinct from
             row(i.bucket, i.member, programmes[i.term]) as another
      from unnest(term, buckets, members, points, verdicts) with ordinality i (term, bucket, member, points, verdict, n)
      join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = programmes[i.term]
      left join public.lot l
        on l.bucket = i.bucket and l.member_id = i.member and l.programme_id = programmes[i.term]
       and l.expires_on = expiries[i.term] and l.funder_id = partners[i.term] and l.contract_id = contracts[i.term]
     where i.verdict = 'post'
    window in_order as (order by i.bucket, i.member, programmes[i.term], i.n)
     order by i.bucket, i.member, programmes[i.term], i.n
  loop
    if item.another then
      so_far := item.holds;
    end if;
    if item.into_full_lot or so_far + item.points > public.most_points() then
      answers[item.n] := 'WALLET_FULL';
    else
      so_far := so_far + item.points;
    end if;
  end loop;
  return answers;
end $$;
revoke execute on function refuse_what_overflows from public;

do $$
declare
  change record;
  found text;
begin
  for change in
    select * from (values
      ('post_earnings',
       'public.refuse_what_overflows(programmes, term, buckets, members, points, verdicts)',
       'public.refuse_what_overflows(programmes, partners, contracts, expiries, term, buckets, members, points, verdicts)'),
      ('fill_lots', $sql$  filled bigint;
$sql$, $sql$  filled bigint;
  made bigint;
$sql$),
      ('fill_lots',
       $sql$       and l.expires_on = s.expires_on and l.funder_id = s.funder and l.contract_id = s.contract
    returning 1)$sql$,
       $sql$       and l.expires_on = s.expires_on and l.funder_id = s.funder and l.contract_id = s.contract
       and l.original <= public.most_counted()
    returning 1)$sql$),
      ('fill_lots',
       $sql$     group by s.bucket, s.member, s.programme, s.funder, s.contract, s.expires_on;
$sql$,
       $sql$     group by s.bucket, s.member, s.programme, s.funder, s.contract, s.expires_on;
    get diagnostics made = row_count;
    if filled + made < wanted then
      raise exception 'a lot is full' using errcode = 'LG002';
    end if;
$sql$),
      ('post_transfer',
       $sql$    verdict := 'WALLET_FULL';
$sql$,
       $sql$    verdict := 'WALLET_FULL';
  elsif verdict = 'post' and exists (
          select from unnest(chosen.lots) t (lot)
            join public.lot l on l.bucket = of_bucket and l.lot_id = t.lot
            join public.lot o
              on o.bucket = other_bucket and o.member_id = other and o.programme_id = of_programme
             and o.expires_on = l.expires_on and o.funder_id = l.funder_id and o.contract_id = l.contract_id
           where o.original > public.most_counted()) then
    verdict := 'WALLET_FULL';
$sql$),
      ('post_adjustment',
       $sql$  if a.points > 0 then
$sql$,
       $sql$  if a.points > 0 and exists (
       select from public.lot l
        where l.bucket = of_bucket and l.member_id = a.member_id and l.programme_id = a.programme_id
          and l.expires_on = a.expires_on and l.funder_id = a.partner_id and l.contract_id = a.contract_id
          and l.original > public.most_counted()) then
    return 'WALLET_FULL';
  end if;
  if a.points > 0 then
$sql$)) c (named, before, after)
  loop
    found := pg_get_functiondef(change.named::regproc);
    if cardinality(string_to_array(found, change.before)) <> 2 then
      raise exception '% is not what this migration expects', change.named;
    end if;
    execute replace(found, change.before, change.after);
  end loop;
end $$;
