-- depends: 0021_walls
-- Keys of the database's own, the audit log, and operators with roles and a second factor.

-- Keys, each for one purpose, encrypted under the configured one.
create table vault_key (
  purpose text primary key,
  wrapped bytea not null
);

-- Who did what: append-only and chained. `sealed` is ciphertext.
create table audit_log (
  number bigint primary key,
  at timestamptz not null,
  actor_kind text not null,
  actor_id uuid,
  client_id text not null,
  token_id text,
  action text not null,
  result text not null,
  sealed bytea not null,
  hash bytea not null
);
create table audit_head (
  one boolean primary key default true check (one),
  number bigint not null,
  hash bytea not null
);
insert into audit_head (number, hash) values (0, '\x');

-- What an entry's hash is over: the previous hash, the number, what is told in plain, and the ciphertext.
create function audit_hash(
  previous bytea, number bigint, at timestamptz, actor_kind text, actor_id uuid, client_id text, token_id text, action text,
  result text, sealed bytea
) returns bytea
language sql immutable as $$
  select sha256(previous || int8send(number) || convert_to(
           jsonb_build_array((extract(epoch from at) * 1000000)::bigint, actor_kind, actor_id, client_id, token_id, action, result)::text,
           'UTF8') || sealed)
$$;

create function note_deed(
  of_time timestamptz, of_kind text, of_actor uuid, of_client text, of_token text, of_action text, of_result text, of_sealed bytea
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, public as $$
declare
  head record;
begin
  -- The head is one row, which every entry locks: the log is of what people do, not of what tills do.
  select h.number + 1 as number, h.hash into head from public.audit_head h for update;
  insert into public.audit_log (number, at, actor_kind, actor_id, client_id, token_id, action, result, sealed, hash)
  values (head.number, of_time, of_kind, of_actor, of_client, of_token, of_action, of_result, of_sealed,
          public.audit_hash(head.hash, head.number, of_time, of_kind, of_actor, of_client, of_token, of_action, of_result, of_sealed));
  update public.audit_head h
     set number = head.number,
         hash = (select l.hash from public.audit_log l where l.number = head.number);
end $$;

-- `roles` of an operator; `second_factor` is a sealed TOTP secret, `factor_step` the last time step that served.
alter table account
  add column roles text[] not null default '{}',
  add column second_factor bytea,
  add column factor_step bigint not null default 0;
update account set roles = '{admin}' where kind = 'operator';
alter table account add check ((kind = 'operator') = (cardinality(roles) > 0));

-- How and when the person behind a code or a session proved who it is.
alter table authorization_code
  add column authenticated_at timestamptz,
  add column strong boolean not null default false;
alter table console_session
  add column authenticated_at timestamptz not null default now(),
  add column strong boolean not null default false;

revoke execute on function note_deed, audit_hash from public;
grant execute on function note_deed, audit_hash to gateway_app;
grant select on audit_log, audit_head to gateway_app;
grant select, insert, update on vault_key to gateway_app;
do $$
declare
  walled regclass;
begin
  foreach walled in array array['vault_key', 'audit_log', 'audit_head']::regclass[] loop
    execute format('alter table %s enable row level security', walled);
    execute format('alter table %s force row level security', walled);
    execute format('create policy past_the_wall on %s to gateway_app, %I using (true) with check (true)', walled, current_user);
  end loop;
end $$;
