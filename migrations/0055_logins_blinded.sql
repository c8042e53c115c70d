-- depends: 0054_references_in_plain
-- A login name may say who a member is: an account is found by its blind index, and only operators' names stay in words. The
-- index needs the vault's key, so it is filled in when the vault is opened (gateway/access/vault.py).

alter table account
  alter column login drop not null,
  add column login_hash bytea unique;
update account
   set login = null
 where kind = 'member'
   and disabled_at is not null
   and login = 'forgotten ' || account_id;
create index account_to_blind on account (account_id) where login_hash is null and login is not null;
