-- depends: 0007_settlement
-- Who may come in: OAuth clients, local accounts, signing keys, authorization codes, console sessions.

create table oauth_client (
  client_id text primary key,
  name text not null,
  partner_id uuid references partner,
  secret_hash bytea,
  redirect_uris text[] not null default '{}',
  grants text[] not null,
  scopes text[] not null,
  created_at timestamptz not null,
  check ((partner_id is null) = (secret_hash is null))
);

create table account (
  account_id uuid primary key,
  kind text not null check (kind in ('operator', 'member')),
  login text not null unique,
  password_hash text not null,
  member_id uuid,
  created_at timestamptz not null,
  check ((kind = 'member') = (member_id is not null))
);

create table signing_key (
  key_id text primary key,
  private_jwk text not null,
  created_at timestamptz not null
);

create table authorization_code (
  code_hash bytea primary key,
  client_id text not null references oauth_client,
  account_id uuid not null references account,
  redirect_uri text not null,
  scope text not null,
  code_challenge text not null,
  expires_at timestamptz not null,
  used_at timestamptz
);

create table console_session (
  session_hash bytea primary key,
  account_id uuid not null references account,
  expires_at timestamptz not null
);
