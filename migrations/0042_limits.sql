-- depends: 0041_folding
-- What was spent and is given back counts no longer against the limit of the day on which it was counted: that of its hold, or
-- that of its posting.

do $$
declare
  found text := pg_get_functiondef('post_reversal'::regproc);
  before text := '    update public.wallet w set available = w.available + wanted';
  uncounted text := $sql$    update public.spending s set points = greatest(s.points - wanted, 0)
     where s.bucket = of_bucket and s.member_id = e.member_id and s.programme_id = e.programme_id
       and s.day = case when r.hold_id is null
                        then (select (t.posted_at at time zone c.timezone)::date
                                from public.transaction t
                               cross join public.coalition c
                               where t.bucket = of_bucket and t.transaction_id = redemption)
                        else (select h.day from public.hold h
                               where h.bucket = of_bucket and h.hold_id = r.hold_id and h.counted) end;
$sql$;
begin
  if position(before in found) = 0 then
    raise exception 'post_reversal is not what this migration expects';
  end if;
  execute replace(found, before, uncounted || before);
end $$;

-- A wallet at a moment of the past looks for all holds of a member, not for the open ones alone.
create index hold_of_member on hold (bucket, member_id, programme_id);
drop index hold_open;
