-- name: lock_signing_keys()!
-- One process at a time may make the first key.
lock table signing_key in share row exclusive mode;

-- name: signing_keys()
-- Every signing key, newest first.
select private_jwk
  from signing_key
 order by created_at desc, key_id;

-- name: store_signing_key(key_id, private_jwk, created_at)!
-- Keep a new signing key.
insert into signing_key (key_id, private_jwk, created_at)
values (:key_id, :private_jwk, :created_at);

-- name: oauth_client(client_id)^
-- One client by its id.
select c.client_id, c.name, c.partner_id, c.secret_hash, c.redirect_uris, c.grants, c.scopes, p.status as partner_status
  from oauth_client c
  left join partner p on p.partner_id = c.partner_id
 where c.client_id = :client_id;

-- name: store_oauth_client(client_id, name, partner_id, secret_hash, redirect_uris, grants, scopes, created_at)!
-- Register a client, or replace what is registered under its id.
insert into oauth_client (client_id, name, partner_id, secret_hash, redirect_uris, grants, scopes, created_at)
values (:client_id, :name, :partner_id, :secret_hash, :redirect_uris, :grants, :scopes, :created_at)
on conflict (client_id) do update
  set name = excluded.name,
      secret_hash = excluded.secret_hash,
      redirect_uris = excluded.redirect_uris,
      grants = excluded.grants,
      scopes = excluded.scopes;

-- name: account_by_login(login)^
-- A local account by its login name.
select account_id, kind, login, password_hash, member_id
  from account
 where login = :login;

-- name: account_by_id(account_id)^
-- A local account by its id.
select account_id, kind, login, password_hash, member_id
  from account
 where account_id = :account_id;

-- name: store_account(account_id, kind, login, password_hash, member_id, created_at)$
-- Create an account or set a new password; answers its id, or null when the login belongs to somebody else.
insert into account (account_id, kind, login, password_hash, member_id, created_at)
values (:account_id, :kind, :login, :password_hash, :member_id, :created_at)
on conflict (login) do update
  set password_hash = excluded.password_hash
where account.kind = excluded.kind
  and account.member_id is not distinct from excluded.member_id
returning account_id;

-- name: authorization_code(code_hash)^
-- A code, locked until the token answer is decided, with the account it was given for.
select c.code_hash, c.client_id, c.account_id, c.redirect_uri, c.scope, c.code_challenge, c.expires_at, c.used_at,
       a.kind, a.member_id
  from authorization_code c
  join account a on a.account_id = c.account_id
 where c.code_hash = :code_hash
   for update of c;

-- name: store_authorization_code(code_hash, client_id, account_id, redirect_uri, scope, code_challenge, expires_at)!
-- Keep a new code; only its hash is kept.
insert into authorization_code (code_hash, client_id, account_id, redirect_uri, scope, code_challenge, expires_at)
values (:code_hash, :client_id, :account_id, :redirect_uri, :scope, :code_challenge, :expires_at);

-- name: use_authorization_code(code_hash, used_at)!
-- A code serves once.
update authorization_code
   set used_at = :used_at
 where code_hash = :code_hash;

-- name: store_console_session(session_hash, account_id, expires_at)!
-- Remember an operator's login for the console's own pages.
insert into console_session (session_hash, account_id, expires_at)
values (:session_hash, :account_id, :expires_at);

-- name: console_session(session_hash, now)^
-- The operator behind a session that has not run out.
select account_id
  from console_session
 where session_hash = :session_hash
   and expires_at > :now;

-- name: end_console_session(session_hash)!
-- Log out.
delete from console_session
 where session_hash = :session_hash;
