-- depends: 0033_own_contracts
-- A disabled account is nobody, whichever way its person comes: by a password here, or with a token of an outside issuer.
alter table account add column disabled_at timestamptz;
update account set disabled_at = now() where password_hash = '';
