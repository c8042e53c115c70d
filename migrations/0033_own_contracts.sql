-- depends: 0032_sealed_keys
-- A partner's prices are the business of that partner and of the coalition.
do $$ begin
  alter table contract enable row level security;
  alter table contract force row level security;
  execute format('create policy past_the_wall on contract to gateway_app, %I using (true) with check (true)', current_user);
end $$;
create policy own on contract for select to gateway_reader using (partner_id = (select reading_partner()));
