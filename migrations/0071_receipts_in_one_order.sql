-- depends: 0070_credit_in_one_order
-- Receipts are claimed in one order, and so are keys, whatever order their items and members are in: two gateways that get them
-- crosswise waited for each other, and everybody else in their lanes with them, until the database saw it a second later.

do $$
declare
  change record;
  found text;
begin
  for change in
    select * from (values
      ('post_earnings',
       $sql$    from generate_subscripts(term, 1) n
   where verdicts[n] = 'post';
  perform public.note_sums($sql$,
       $sql$    from (select n from generate_subscripts(term, 1) n where verdicts[n] = 'post'
           order by partners[term[n]], receipts[n] collate "C") o;
  perform public.note_sums($sql$),
      ('answer',
       $sql$   where verdicts[n] not in ('replay', 'IDEMPOTENCY_KEY_REUSED', 'STALE', 'PERIOD_NOT_OPEN', 'CREDIT_SHORT');
$sql$,
       $sql$   where verdicts[n] not in ('replay', 'IDEMPOTENCY_KEY_REUSED', 'STALE', 'PERIOD_NOT_OPEN', 'CREDIT_SHORT')
   order by owners[term[n]], keys[n] collate "C";
$sql$)) c (named, before, after)
  loop
    found := pg_get_functiondef(change.named::regproc);
    if cardinality(string_to_array(found, change.before)) <> 2 then
      raise exception '% is not what this migration expects', change.named;
    end if;
    execute replace(found, change.before, change.after);
  end loop;
end $$;
