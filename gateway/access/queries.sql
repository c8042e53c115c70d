-- name: use_once(digest, until)$
-- True the first time, null ever after.
insert into used_once (digest, until)
values (:digest, :until)
on conflict do nothing
returning true;

-- name: clients_of_partner(partner)
-- Every client of a partner.
select client_id
  from oauth_client
 where partner_id = :partner;

-- name: store_secret(secret_hash, client_id, created_at)!
-- A further secret of a client.
insert into oauth_secret (secret_hash, client_id, created_at)
values (:secret_hash, :client_id, :created_at);

-- name: end_secrets(client_id, keep, ended_at)!
-- End all of a client's secrets but the newest `keep`.
update oauth_secret
   set ended_at = :ended_at
 where client_id = :client_id
   and ended_at is null
   and secret_hash not in (
     select s.secret_hash from oauth_secret s
      where s.client_id = :client_id and s.ended_at is null
      order by s.created_at desc, s.secret_hash
      limit :keep);

-- name: store_family(family_id, client_id, account_id, scope, key_thumbprint, began_at, consent_id)!
-- What one login leads to.
insert into token_family (family_id, client_id, account_id, scope, key_thumbprint, began_at, consent_id)
values (:family_id, :client_id, :account_id, :scope, :key_thumbprint, :began_at, :consent_id);

-- name: end_family(family_id, ended_at)!
-- Its refresh tokens serve no more.
update token_family
   set ended_at = coalesce(ended_at, :ended_at)
 where family_id = :family_id;

-- name: lock_family(token_hash)!
-- Whoever comes with another token of the same family waits until the answer is decided.
select from token_family
 where family_id = (select t.family_id from refresh_token t where t.token_hash = :token_hash)
   for update;

-- name: refresh_token(token_hash)^
-- A refresh token with its family, when one of its generation served first, how many followed on these, and whether one of them served.
select r.token_hash, r.family_id, r.expires_at, r.used_at, r.generation, f.client_id, f.account_id, f.scope, f.key_thumbprint,
       f.ended_at, f.consent_id, a.kind, a.member_id, a.roles,
       (select min(s.used_at) from refresh_token s where s.family_id = r.family_id and s.generation = r.generation) as first_used_at,
       (select count(*) from refresh_token s where s.family_id = r.family_id and s.generation = r.generation + 1) as followed_by,
       exists (
         select from refresh_token s
          where s.family_id = r.family_id and s.generation > r.generation and s.used_at is not null) as succeeded
  from refresh_token r
  join token_family f on f.family_id = r.family_id
  join account a on a.account_id = f.account_id and a.disabled_at is null
 where r.token_hash = :token_hash;

-- name: store_refresh_token(token_hash, family_id, generation, issued_at, expires_at)!
-- Keep a new refresh token; only its hash is kept.
insert into refresh_token (token_hash, family_id, generation, issued_at, expires_at)
values (:token_hash, :family_id, :generation, :issued_at, :expires_at);

-- name: use_refresh_token(token_hash, used_at)!
-- A refresh token serves once.
update refresh_token
   set used_at = coalesce(used_at, :used_at)
 where token_hash = :token_hash;

-- name: store_pushed_request(request_hash, client_id, parameters, expires_at)!
-- Keep an authorization request that its client pushed.
insert into pushed_request (request_hash, client_id, parameters, expires_at)
values (:request_hash, :client_id, :parameters::text::jsonb, :expires_at);

-- name: pushed_request(request_hash, client_id, now)^
-- A pushed request that can still be used.
select parameters::text as parameters
  from pushed_request
 where request_hash = :request_hash
   and client_id = :client_id
   and used_at is null
   and expires_at > :now
   for update;

-- name: use_pushed_request(request_hash, used_at)!
-- A pushed request serves once.
update pushed_request
   set used_at = :used_at
 where request_hash = :request_hash;

-- name: forget_ended(now)$
-- Delete what has ended and is looked for by nobody any more; answers how many rows that were.
with codes as (delete from authorization_code where expires_at < :now::timestamptz - interval '1 day' returning 1),
     sessions as (delete from console_session where expires_at < :now returning 1),
     pushed as (delete from pushed_request where expires_at < :now returning 1),
     once as (delete from used_once where until < :now returning 1),
     revoked as (delete from revocation where until < :now returning 1),
     failures as (delete from login_failure where last_at < :now::timestamptz - interval '1 day' returning 1),
     refresh as (delete from refresh_token where expires_at < :now::timestamptz - interval '1 day' returning 1),
     -- Whoever comes back finds a full budget, as it is by then.
     budgets as (delete from budget where as_of < clock_timestamp() - interval '1 hour' returning 1)
select (select count(*) from codes) + (select count(*) from sessions) + (select count(*) from pushed)
       + (select count(*) from once) + (select count(*) from revoked) + (select count(*) from failures) + (select count(*) from refresh)
       + (select count(*) from budgets);

-- name: jwks_uri_of(client_id)$
-- Where a client publishes its keys.
select jwks_uri
  from oauth_client
 where client_id = :client_id;

-- name: oauth_client(client_id)^
-- One client by its id.
select c.client_id, c.name, c.partner_id, c.jwks::text as jwks, c.jwks_uri, c.dpop_bound, c.redirect_uris, c.grants, c.scopes, c.purpose,
       p.status as partner_status,
       array(select s.secret_hash from oauth_secret s where s.client_id = c.client_id and s.ended_at is null) as secrets
  from oauth_client c
  left join partner p on p.partner_id = c.partner_id
 where c.client_id = :client_id;

-- name: store_oauth_client(client_id, name, partner_id, jwks, jwks_uri, dpop_bound, redirect_uris, grants, scopes, purpose, created_at)!
-- Register a client, or replace what is registered under its id.
insert into oauth_client (client_id, name, partner_id, jwks, jwks_uri, dpop_bound, redirect_uris, grants, scopes, purpose, created_at)
values (:client_id, :name, :partner_id, :jwks::text::jsonb, :jwks_uri, :dpop_bound, :redirect_uris, :grants, :scopes, :purpose, :created_at)
on conflict (client_id) do update
  set name = excluded.name,
      jwks = excluded.jwks,
      jwks_uri = excluded.jwks_uri,
      dpop_bound = excluded.dpop_bound,
      redirect_uris = excluded.redirect_uris,
      grants = excluded.grants,
      scopes = excluded.scopes,
      purpose = excluded.purpose;

-- name: account_by_login(login_hash)^
-- A local account by the blind index of its login name.
select account_id, kind, password_hash, member_id, roles, second_factor, factor_step
  from account
 where login_hash = :login_hash;

-- name: operator_by_login(login)^
-- An operator's local account by its login name.
select account_id, member_id, second_factor, factor_step
  from account
 where login = :login
   and kind = 'operator';

-- name: account_stands(account_id, password_hash, second_factor)$
-- Whether an account still has a password and a second factor and is not disabled; nobody changes that until the transaction ends.
select true
  from account
 where account_id = :account_id
   and password_hash = :password_hash
   and second_factor is not distinct from :second_factor
   and disabled_at is null
   for share;

-- name: account_by_id(account_id)^
-- A local account by its id.
select account_id, kind, member_id, roles
  from account
 where account_id = :account_id;

-- name: login_failures(login_hash, at)^
-- How often a login was typed with a wrong password of late, locked: tries come one after the other.
insert into login_failure (login_hash, failures, last_at)
values (:login_hash, 0, :at)
on conflict (login_hash) do update set failures = login_failure.failures
returning failures, last_at;

-- name: note_login_failure(login_hash, failures, at)!
-- Another wrong password.
update login_failure
   set failures = :failures,
       last_at = :at
 where login_hash = :login_hash;

-- name: logins_of(member)
-- The blind indexes of what a member's local accounts are called.
select login_hash
  from account
 where member_id = :member
   and login_hash is not null
 order by login_hash;

-- name: lock_codes_of(member)!
-- Nobody redeems a code of this member until the transaction ends.
select c.code_hash
  from authorization_code c
  join account a on a.account_id = c.account_id
 where a.member_id = :member
   and c.used_at is null
 order by c.code_hash
   for update of c;

-- name: lock_accounts_of(member)!
-- Nobody logs in as this member until the transaction ends.
select account_id
  from account
 where member_id = :member
 order by account_id
   for update;

-- name: forget_login_failures(login_hash)!
-- How often a login was typed with a wrong password counts no more.
delete from login_failure
 where login_hash = :login_hash;

-- name: end_accounts_of(member, at)
-- A member's logins open nothing any more, and nobody finds them by their names.
update account
   set login = null,
       login_hash = null,
       password_hash = '',
       second_factor = null,
       disabled_at = :at
 where member_id = :member
returning account_id, member_id;

-- name: forget_identities(member)!
-- Nobody at an outside issuer is this member any more.
delete from outside_identity
 where kind = 'member'
   and subject_id = :member;

-- name: set_second_factor(account_id, second_factor)!
-- A new second factor, of which no step has served.
update account
   set second_factor = :second_factor,
       factor_step = 0
 where account_id = :account_id;

-- name: use_factor_step(account_id, step)!
-- A step of the second factor serves once.
update account
   set factor_step = :step
 where account_id = :account_id;

-- name: store_account(account_id, kind, login, login_hash, password_hash, member_id, roles, created_at)$
-- Create an account or set a new password; answers its id, or null when the login belongs to somebody else. Only an operator's
-- login is kept in words.
insert into account (account_id, kind, login, login_hash, password_hash, member_id, roles, created_at)
values (:account_id, :kind, case when :kind = 'operator' then :login end, :login_hash, :password_hash, :member_id,
        case when :kind = 'operator' and cardinality(:roles::text[]) = 0 then array['admin'] else :roles::text[] end, :created_at)
on conflict (login_hash) do update
  set password_hash = excluded.password_hash,
      disabled_at = null,
      roles = case when cardinality(:roles::text[]) > 0 then :roles::text[] else account.roles end
where account.kind = excluded.kind
  and account.member_id is not distinct from excluded.member_id
returning account_id;

-- name: disable_account(account_id, at)!
-- Nothing opens this account any more, until it gets a new password.
update account
   set password_hash = '',
       disabled_at = :at
 where account_id = :account_id;

-- name: end_console_sessions(account_id)!
-- Log an operator out everywhere.
delete from console_session
 where account_id = :account_id;

-- name: end_families(account_id, ended_at)
-- End every refresh token of an account; answers the logins that they came from.
update token_family
   set ended_at = :ended_at
 where account_id = :account_id
   and ended_at is null
returning family_id;

-- name: end_codes(account_id, ended_at)!
-- No code of an account serves any more.
update authorization_code
   set used_at = :ended_at
 where account_id = :account_id
   and used_at is null;

-- name: authorization_code(code_hash)^
-- A code, locked until the token answer is decided, with the account it was given for.
select c.code_hash, c.client_id, c.account_id, c.redirect_uri, c.scope, c.code_challenge, c.expires_at, c.used_at,
       c.family_id, c.key_thumbprint, c.authenticated_at, c.strong, c.consent_id, a.kind, a.member_id, a.roles
  from authorization_code c
  join account a on a.account_id = c.account_id and a.disabled_at is null
 where c.code_hash = :code_hash
   for update of c;

-- name: store_authorization_code(code_hash, client_id, account_id, redirect_uri, scope, code_challenge, expires_at, family_id, key_thumbprint, authenticated_at, strong, consent_id)!
-- Keep a new code; only its hash is kept.
insert into authorization_code (code_hash, client_id, account_id, redirect_uri, scope, code_challenge, expires_at, family_id,
                                key_thumbprint, authenticated_at, strong, consent_id)
values (:code_hash, :client_id, :account_id, :redirect_uri, :scope, :code_challenge, :expires_at, :family_id, :key_thumbprint,
        :authenticated_at, :strong, :consent_id);

-- name: use_authorization_code(code_hash, used_at)!
-- A code serves once.
update authorization_code
   set used_at = :used_at
 where code_hash = :code_hash;

-- name: store_console_session(session_hash, account_id, expires_at, authenticated_at, strong)!
-- Remember an operator's login for the console's own pages.
insert into console_session (session_hash, account_id, expires_at, authenticated_at, strong)
values (:session_hash, :account_id, :expires_at, :authenticated_at, :strong);

-- name: console_session(session_hash, now)^
-- The operator behind a session that has not run out; nobody ends it until the transaction does, so that its code is seen then.
select account_id, authenticated_at, strong
  from console_session
 where session_hash = :session_hash
   and expires_at > :now
   for share;

-- name: end_console_session(session_hash)$
-- Log out; answers who.
delete from console_session
 where session_hash = :session_hash
returning account_id;
