-- depends: 0043_generations
-- What is added up of whole numbers can be larger than any of them: sums are numeric, still whole, and never overflow.

alter table delta alter column points type numeric, alter column amount_minor type numeric;
alter table statement
  alter column amount_minor type numeric, alter column issued type numeric, alter column returned type numeric,
  alter column redeemed type numeric, alter column converted_out type numeric, alter column converted_in type numeric,
  alter column net_minor type numeric;
alter table statement_line alter column points type numeric, alter column gross_minor type numeric;
alter table period_programme
  alter column outstanding type numeric, alter column debt type numeric, alter column expired type numeric;
alter table delta add check (points = trunc(points) and amount_minor = trunc(amount_minor));

-- Whoever waits for one wallet holds up nobody for longer than a batch does, and gets a clear "busy".
do $$
declare
  named text;
begin
  foreach named in array array['post_reversal', 'post_release', 'post_transfer', 'post_adjustment', 'place_hold', 'post_conversion',
                               'release_hold', 'post_maturities', 'post_expiries', 'post_run_out_holds'] loop
    execute format('alter function %s set lock_timeout = %L', named::regproc, '2s');
  end loop;
end $$;

-- Lock those of these wallets that nobody else is at work on, in their order; answers the numbers of the items that have one of
-- them. Jobs leave the others to their next run, instead of holding hundreds of wallets while they wait for one.
create function lock_free_wallets(buckets smallint[], members uuid[], programmes uuid[]) returns bigint[]
language plpgsql volatile as $$
declare
  free_members uuid[];
  free_programmes uuid[];
begin
  select coalesce(array_agg(f.member_id), '{}'), coalesce(array_agg(f.programme_id), '{}')
    into free_members, free_programmes
    from (select w.member_id, w.programme_id
            from (select distinct bucket, member, programme
                    from unnest(buckets, members, programmes) u (bucket, member, programme)
                   order by 1, 2, 3) i
            join public.wallet w on w.bucket = i.bucket and w.member_id = i.member and w.programme_id = i.programme
           order by w.bucket, w.member_id, w.programme_id
             for update of w skip locked) f;
  return coalesce((
    select array_agg(i.n order by i.n)
      from unnest(members, programmes) with ordinality i (member, programme, n)
     where (i.member, i.programme) in (
       select f.member, f.programme from unnest(free_members, free_programmes) f (member, programme))), '{}');
end $$;

revoke execute on function lock_free_wallets from public;

do $$
declare
  changed record;
  found text;
begin
  for changed in
    select * from (values
      ('post_maturities',
       '  perform public.lock_wallets(buckets, members, programmes);' || E'\n',
       $sql$  free := public.lock_free_wallets(buckets, members, programmes);
  select array_agg(buckets[n]), array_agg(transactions[n]) into buckets, transactions from unnest(free) n;
$sql$),
      ('post_run_out_holds',
       '  perform public.lock_wallets(buckets, members, programmes);' || E'\n',
       $sql$  free := public.lock_free_wallets(buckets, members, programmes);
  select array_agg(buckets[n]), array_agg(holds[n]) into buckets, holds from unnest(free) n;
$sql$),
      ('post_expiries',
       '  perform public.lock_wallets(buckets, members, array_fill(of_programme, array[cardinality(members)]));' || E'\n',
       $sql$  free := public.lock_free_wallets(buckets, members, array_fill(of_programme, array[cardinality(members)]));
  select array_agg(buckets[n] order by n), array_agg(members[n] order by n) into buckets, members from unnest(free) n;
  if buckets is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
$sql$)
    ) c (named, before, after)
  loop
    found := pg_get_functiondef(changed.named::regproc);
    if position(changed.before in found) = 0 or position(E'\ndeclare\n' in found) = 0 then
      raise exception '% is not what this migration expects', changed.named;
    end if;
    execute replace(replace(found, changed.before, changed.after), E'\ndeclare\n', E'\ndeclare\n  free bigint[];\n');
  end loop;
end $$;

-- A partner that prepays (a limit of zero) is warned by what it paid last; who was warned is warned once.
alter table partner_credit add column warned_at timestamptz, add column last_paid_minor bigint not null default 0;
update partner_credit c
   set last_paid_minor = p.amount_minor
  from (select distinct on (partner_id) partner_id, amount_minor from credit_payment order by partner_id, paid_at desc) p
 where p.partner_id = c.partner_id;
do $$
declare
  found text := pg_get_functiondef('pay_credit'::regproc);
  dealt text := '  perform public.deal_credit(of_partner, amount);';
begin
  if position(dealt in found) = 0 then
    raise exception 'pay_credit is not what this migration expects';
  end if;
  execute replace(found, dealt, dealt || E'\n  update public.partner_credit c set last_paid_minor = amount where c.partner_id = of_partner;');
end $$;
grant update (warned_at) on partner_credit to gateway_app;

-- Why an adjustment that one operator could make alone was refused: the answer to its key for ever.
alter table adjustment add column refusal text;
alter table adjustment add check (refusal is null or state = 'rejected');
