-- depends: 0024_door
-- Identity providers of others: who their subjects are here, and where partners publish their own keys.

create table outside_identity (
  issuer text not null,
  subject text not null,
  kind text not null check (kind in ('partner', 'member', 'operator')),
  subject_id uuid not null,
  linked_at timestamptz not null,
  primary key (issuer, subject)
);
alter table outside_identity enable row level security;
alter table outside_identity force row level security;
do $$ begin
  execute format('create policy past_the_wall on outside_identity to gateway_app, %I using (true) with check (true)', current_user);
end $$;
grant select, insert, update, delete on outside_identity to gateway_app;

-- Where a client publishes its keys, instead of having them registered.
alter table oauth_client add column jwks_uri text check (jwks is null or jwks_uri is null);
