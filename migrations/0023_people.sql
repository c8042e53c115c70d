-- depends: 0022_accountability
-- What is known of a member as a person, encrypted with a key of its own, and what the member allows partners.

-- `wrapped_key` is the person's own key, encrypted under the configured one; without it `sealed` says nothing to anybody.
create table person (
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  wrapped_key bytea not null,
  sealed bytea not null,
  updated_at timestamptz not null,
  primary key (bucket, member_id),
  foreign key (bucket, member_id) references member
);

-- By what a person is looked for: an HMAC of the normalised e-mail address or phone number. Families share both.
create table person_lookup (
  field text not null check (field in ('email', 'phone')),
  digest bytea not null,
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  primary key (field, digest, bucket, member_id)
);
create index person_lookup_of_member on person_lookup (bucket, member_id);

-- A member allows a partner to act for it, and to see classes of its data, for a purpose, as a version of the notice says.
create table consent (
  bucket smallint not null check (bucket between 0 and 255),
  consent_id uuid not null,
  member_id uuid not null,
  partner_id uuid not null references partner,
  purpose text not null,
  scopes text[] not null,
  data_classes text[] not null,
  notice_version text not null,
  evidence jsonb not null,
  granted_at timestamptz not null,
  withdrawn_at timestamptz,
  primary key (bucket, consent_id),
  foreign key (bucket, member_id) references member
);
create index consent_of_member on consent (bucket, member_id, partner_id);

-- The consent under which a partner's code or tokens were given.
alter table authorization_code add column consent_id uuid;
alter table token_family add column consent_id uuid;

do $$
declare
  walled regclass;
begin
  foreach walled in array array['person', 'person_lookup', 'consent']::regclass[] loop
    execute format('alter table %s enable row level security', walled);
    execute format('alter table %s force row level security', walled);
    execute format('create policy past_the_wall on %s to gateway_app, %I using (true) with check (true)', walled, current_user);
  end loop;
end $$;
grant select, insert, update, delete on person, person_lookup to gateway_app;
grant select, insert, update on consent to gateway_app;
grant select on person, consent to gateway_reader;

create policy own on consent for select to gateway_reader
  using (member_id = (select reading_member()) or partner_id = (select reading_partner()));
create policy own on person for select to gateway_reader
  using (member_id = (select reading_member())
         or exists (select from consent c
                     where c.bucket = person.bucket and c.member_id = person.member_id
                       and c.partner_id = (select reading_partner())
                       and c.withdrawn_at is null and 'contact' = any(c.data_classes)));

-- For what a partner's client asks members' consent, in the words of the consent page.
alter table oauth_client add column purpose text;
