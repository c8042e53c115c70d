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
