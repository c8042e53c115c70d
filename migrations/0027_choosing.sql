-- depends: 0026_sealing
-- Most redemptions find all they take in the lot that expires first: those look at no other.

-- Which lots each item takes from, all or nothing: `items` numbers the item that `takes` points from each of `lots`.
-- Where `todays` are given, the programme's limits on spending hold, by the ledger's day. The caller never has two
-- items on one wallet.
create or replace function choose_lots(
  buckets smallint[], members uuid[], programmes uuid[], days date[], points bigint[], verdicts text[], todays date[],
  out items bigint[], out lots uuid[], out takes bigint[], out answers text[]
) returns record
language plpgsql volatile as $$
begin
  -- The lot that expires first, where the index finds it; then all lots of those that need more.
  with first as materialized (
    select i.*, f.lot_id, f.remaining
      from unnest(buckets, members, programmes, days, points, verdicts, todays) with ordinality
           i (bucket, member, programme, day, points, verdict, today, n)
      left join lateral (
        select l.lot_id, l.remaining
          from public.lot l
         where l.bucket = i.bucket and l.member_id = i.member and l.programme_id = i.programme
           and l.remaining > 0 and l.expires_on >= i.day
         order by l.expires_on, l.funder_id, l.contract_id
         limit 1) f on i.verdict = 'post'),
  source as (
    select i.n, i.bucket, i.member, i.programme, i.points, i.verdict, i.today, i.lot_id, i.remaining, 0::bigint as before, i.remaining as total
      from first i where i.remaining >= i.points
    union all
    select i.n, i.bucket, i.member, i.programme, i.points, i.verdict, i.today, l.lot_id, l.remaining,
           coalesce(sum(l.remaining) over (partition by i.n order by l.expires_on, l.funder_id, l.contract_id
                                           rows unbounded preceding)::bigint - l.remaining, 0),
           coalesce(sum(l.remaining) over (partition by i.n)::bigint, 0)
      from first i
      left join public.lot l
        on i.verdict = 'post' and l.bucket = i.bucket and l.member_id = i.member and l.programme_id = i.programme
       and l.remaining > 0 and l.expires_on >= i.day
     where i.remaining is null or i.remaining < i.points)
  select array_agg(v.n) filter (where v.verdict = 'post'),
         array_agg(v.lot_id) filter (where v.verdict = 'post'),
         array_agg(least(v.remaining, v.points - v.before)) filter (where v.verdict = 'post'),
         array_agg(v.verdict order by v.n) filter (where v.before = 0)
    into items, lots, takes, answers
    from (
      select l.n, l.lot_id, l.remaining, l.points, l.before,
             case when l.verdict <> 'post' then l.verdict
                  when l.total < l.points then 'INSUFFICIENT_POINTS'
                  when l.today is not null and l.points > g.spend_most then 'TRANSACTION_LIMIT_EXCEEDED'
                  when l.today is not null and g.spend_most_a_day is not null and g.spend_most_a_day < l.points + coalesce((
                         select s.points from public.spending s
                          where s.bucket = l.bucket and s.member_id = l.member and s.programme_id = l.programme
                            and s.day = l.today), 0)
                    then 'DAILY_LIMIT_REACHED'
                  else 'post' end as verdict
        from source l
        join public.programme g on g.programme_id = l.programme
       where l.before < l.points or l.before = 0) v;
end $$;
