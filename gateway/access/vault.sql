-- name: lock_vault()!
-- One process at a time may make keys.
lock table vault_key in share row exclusive mode;

-- name: vault_keys()
-- The keys, each wrapped.
select purpose, wrapped
  from vault_key
 order by purpose;

-- name: store_vault_key(purpose, wrapped)!
-- Keep a new key.
insert into vault_key (purpose, wrapped)
values (:purpose, :wrapped);

-- name: replace_vault_key(purpose, wrapped)!
-- The same key, wrapped by another one.
update vault_key
   set wrapped = :wrapped
 where purpose = :purpose;

-- name: logins_in_words()
-- What operators are called, and accounts from before migration 0055.
select account_id, login, login_hash
  from account
 where login is not null;

-- name: blind_login(account_id, login, composed, login_hash)!
-- An account is found by the blind index of its login; a member's is kept in words no more. Where there is another one of the same
-- name, as a process of before has made meanwhile, that stays the one that is found.
update account
   set login_hash = :login_hash,
       login = case when kind = 'operator' then :composed end
 where account_id = :account_id
   and login = :login
   and not exists (select from account a where a.login_hash = :login_hash);
