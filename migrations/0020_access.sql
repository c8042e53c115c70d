-- depends: 0019_jobs
-- The authorization server: several secrets or keys a client, refresh tokens in families, revocations, pushed requests,
-- what may be used only once, and the states of signing keys.

-- A client has secrets, or keys of its own (`jwks`, for private_key_jwt), or, if it is nobody's partner, neither.
create table oauth_secret (
  secret_hash bytea primary key,
  client_id text not null references oauth_client,
  created_at timestamptz not null,
  ended_at timestamptz
);
create index oauth_secret_of_client on oauth_secret (client_id);
insert into oauth_secret (secret_hash, client_id, created_at)
select secret_hash, client_id, created_at from oauth_client where secret_hash is not null;
alter table oauth_client drop constraint oauth_client_check;
alter table oauth_client drop column secret_hash;
alter table oauth_client
  add column jwks jsonb,
  add column dpop_bound boolean not null default false,
  add check (partner_id is not null or jwks is null);

-- What one login led to: its tokens are refreshed, and end, together. `key_thumbprint`: of the key they are bound to.
create table token_family (
  family_id uuid primary key,
  client_id text not null references oauth_client,
  account_id uuid not null references account,
  scope text not null,
  key_thumbprint text,
  began_at timestamptz not null,
  ended_at timestamptz
);
alter table authorization_code add column family_id uuid not null default gen_random_uuid();
alter table authorization_code add column key_thumbprint text;
create table refresh_token (
  token_hash bytea primary key,
  family_id uuid not null references token_family,
  parent_hash bytea,
  issued_at timestamptz not null,
  expires_at timestamptz not null,
  used_at timestamptz
);
create index refresh_token_of_family on refresh_token (family_id);
create index refresh_token_of_parent on refresh_token (parent_hash);

-- Access tokens that ended before their time: jti:..., sid:... (a family) or client:...; kept until the last token it is
-- about has ended by itself.
create table revocation (
  mark text primary key,
  revoked_at timestamptz not null,
  until timestamptz not null
);
create index revocation_until on revocation (until);

-- An authorization request that the client pushed (RFC 9126).
create table pushed_request (
  request_hash bytea primary key,
  client_id text not null references oauth_client,
  parameters jsonb not null,
  expires_at timestamptz not null,
  used_at timestamptz
);

-- Digests of what serves once: the jti of assertions and of DPoP proofs.
create table used_once (
  digest bytea primary key,
  until timestamptz not null
);
create index used_once_until on used_once (until);

-- `next` is published before it signs; `retired` keys sign no more and keep their public part alone, for what they signed.
alter table signing_key rename column private_jwk to jwk;
alter table signing_key
  add column state text not null default 'active' check (state in ('next', 'active', 'retired')),
  add column retired_at timestamptz,
  add check ((state = 'retired') = (retired_at is not null));
create unique index signing_key_active on signing_key (state) where state in ('next', 'active');

-- Passwords that were wrong, by the hash of the login that was typed, whether there is such an account or not.
create table login_failure (
  login_hash bytea primary key,
  failures int not null,
  last_at timestamptz not null
);

grant select, insert, update, delete on login_failure, oauth_secret, token_family, refresh_token, revocation, pushed_request, used_once to gateway_app;
