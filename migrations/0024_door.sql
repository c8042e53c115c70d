-- depends: 0023_people
-- The door: documents that apps may send, and what each client may still ask for.

-- A document of an app, by the SHA-256 of its text; apps of members send its id alone.
create table trusted_document (
  client_id text not null,
  document_id text not null check (document_id ~ '^sha256:[0-9a-f]{64}$'),
  text text not null,
  registered_at timestamptz not null,
  primary key (client_id, document_id)
);

-- What a client may still ask for, in points of cost, shared by all processes, each of which takes some in advance. A crash
-- may forget it: everybody begins with a full budget then.
create unlogged table budget (
  holder text primary key,
  available double precision not null,
  as_of timestamptz not null
) with (fillfactor = 50);

-- Take up to `wanted` points, or none where there are fewer than `needed`; answers what was taken and what is left.
create function take_budget(
  of_holder text, most double precision, rate double precision, needed double precision, wanted double precision,
  out taken double precision, out left_over double precision
) returns record
language plpgsql volatile
set search_path = pg_catalog, public as $$
declare
  moment timestamptz := clock_timestamp();
begin
  insert into public.budget as b (holder, available, as_of) values (of_holder, most, moment)
  on conflict (holder) do update
    set available = least(most, b.available + rate * greatest(0, extract(epoch from moment - b.as_of))), as_of = greatest(b.as_of, moment)
  returning b.available into left_over;
  taken := case when left_over >= needed then least(left_over, greatest(wanted, needed)) else 0 end;
  left_over := left_over - taken;
  update public.budget b set available = left_over where b.holder = of_holder;
end $$;

revoke execute on function take_budget from public;
grant execute on function take_budget to gateway_app;
grant select, insert, update, delete on trusted_document, budget to gateway_app;
