-- depends: 0036_purchases
-- To whom something was done: the ids that a deed named or brought to light stand in the audit log in plain, to be searched for.

alter table audit_log add column about text[] not null default '{}';
create index audit_log_about on audit_log using gin (about);
create index audit_log_actor on audit_log (actor_id, number);

-- As before for entries about nobody, so that the chain of those from before holds; else what they are about counts too.
create function audit_hash(
  previous bytea, number bigint, at timestamptz, actor_kind text, actor_id uuid, client_id text, token_id text, action text,
  result text, about text[], sealed bytea
) returns bytea
language sql immutable as $$
  select sha256(previous || int8send(number) || convert_to(
           (jsonb_build_array((extract(epoch from at) * 1000000)::bigint, actor_kind, actor_id, client_id, token_id, action, result)
            || case when about = '{}' then '[]'::jsonb else jsonb_build_array(about) end)::text, 'UTF8') || sealed)
$$;

create function note_deed(
  of_time timestamptz, of_kind text, of_actor uuid, of_client text, of_token text, of_action text, of_result text,
  of_about text[], of_sealed bytea
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, public, pg_temp as $$
declare
  head record;
begin
  -- The head is one row, which every entry locks: the log is of what people do, not of what tills do.
  select h.number + 1 as number, h.hash into head from public.audit_head h for update;
  insert into public.audit_log (number, at, actor_kind, actor_id, client_id, token_id, action, result, about, sealed, hash)
  values (head.number, of_time, of_kind, of_actor, of_client, of_token, of_action, of_result, of_about, of_sealed,
          public.audit_hash(head.hash, head.number, of_time, of_kind, of_actor, of_client, of_token, of_action, of_result,
                            of_about, of_sealed));
  update public.audit_head h
     set number = head.number,
         hash = (select l.hash from public.audit_log l where l.number = head.number);
end $$;

drop function note_deed(timestamptz, text, uuid, text, text, text, text, bytea);
drop function audit_hash(bytea, bigint, timestamptz, text, uuid, text, text, text, text, bytea);
revoke execute on function note_deed, audit_hash from public;
grant execute on function note_deed, audit_hash to gateway_app;
