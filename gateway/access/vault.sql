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

-- name: logins_to_blind()
-- Accounts from before migration 0055.
select account_id, login
  from account
 where login_hash is null
   and login is not null;

-- name: blind_login(account_id, login, login_hash)!
-- An account is found by the blind index of its login; a member's is kept in words no more. Where a process of
-- before that migration made a second one of the same name meanwhile, the first stays the one that is found.
update account
   set login_hash = :login_hash,
       login = case when kind = 'operator' then login end
 where account_id = :account_id
   and login = :login
   and login_hash is null
   and not exists (select from account a where a.login_hash = :login_hash);
