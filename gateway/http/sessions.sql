-- name: console_session(session_hash, now)^
-- The operator behind a session that has not run out; nobody ends it until the transaction does, so that its code is seen then.
select account_id, authenticated_at, strong
  from console_session
 where session_hash = :session_hash
   and expires_at > :now
   for share;

-- name: store_console_session(session_hash, account_id, expires_at, authenticated_at, strong)!
-- Remember an operator's login for the console's own pages.
insert into console_session (session_hash, account_id, expires_at, authenticated_at, strong)
values (:session_hash, :account_id, :expires_at, :authenticated_at, :strong);

-- name: end_console_session(session_hash)$
-- Log out; answers who.
delete from console_session
 where session_hash = :session_hash
returning account_id;
