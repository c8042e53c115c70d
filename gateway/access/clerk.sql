-- name: use_once(digest, until)$
-- True the first time, null ever after.
insert into used_once (digest, until)
values (:digest, :until)
on conflict do nothing
returning true;

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
with sessions as (delete from console_session where expires_at < :now returning 1),  -- before codes, as whoever locks both does
     codes as (delete from authorization_code where expires_at < :now::timestamptz - interval '1 day' returning 1),
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

-- name: jwks_uri_of(client_id)$
-- Where a client publishes its keys.
select jwks_uri
  from oauth_client
 where client_id = :client_id;
