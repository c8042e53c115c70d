-- name: lock_signing_keys()!
-- One process at a time may make the first key.
lock table signing_key in share row exclusive mode;

-- name: signing_keys()
-- Every signing key, newest first.
select key_id, jwk, sealed, state, created_at, retired_at
  from signing_key
 order by created_at desc, key_id;

-- name: store_signing_key(key_id, jwk, sealed, state, created_at)!
-- Keep a new signing key: `jwk` is its public part, `sealed` the whole of it.
insert into signing_key (key_id, jwk, sealed, state, created_at)
values (:key_id, :jwk, :sealed, :state, :created_at);

-- name: seal_signing_key(key_id, jwk, sealed)!
-- A key that lay open is sealed.
update signing_key
   set jwk = :jwk,
       sealed = :sealed
 where key_id = :key_id;

-- name: retire_active_key(retired_at)!
-- The key that signs does so no more; what it signed is checked with its public part.
update signing_key
   set state = 'retired',
       sealed = null,
       retired_at = :retired_at
 where state = 'active';

-- name: end_retired_keys(retired_at)!
-- As if every retired key had been retired long ago: what it signed for tokens is good no more.
update signing_key
   set retired_at = least(retired_at, :retired_at)
 where state = 'retired';

-- name: activate_next_key()!
-- The key that was published as next signs from now on.
update signing_key
   set state = 'active'
 where state = 'next';

-- name: key_states()
-- The ids of all keys with their states.
select key_id, state
  from signing_key;

-- name: wait_for_logins()!
-- Whoever is at work on a session, a code or a refresh token is waited for, and nobody begins until the transaction ends. In the
-- order in which a code follows from a session, and a refresh token from a code.
lock table console_session, authorization_code, token_family in exclusive mode;

-- name: end_all_sessions()!
-- Of all operators.
delete from console_session;

-- name: end_all_requests()!
-- What apps have pushed, and nobody has agreed to yet.
delete from pushed_request;

-- name: end_all_codes(ended_at)!
-- Of everybody.
update authorization_code
   set used_at = :ended_at
 where used_at is null;

-- name: end_all_families(ended_at)!
-- No refresh token of anybody serves any more.
update token_family
   set ended_at = :ended_at
 where ended_at is null;
