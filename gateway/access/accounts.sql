-- name: account_by_login(login_hash)^
-- A local account by the blind index of its login name.
select account_id, kind, password_hash, member_id, roles, second_factor, factor_step
  from account
 where login_hash = :login_hash;

-- name: operator_by_login(login)^
-- An operator's local account by its login name.
select account_id, member_id, second_factor, factor_step, roles, disabled_at
  from account
 where login = :login
   and kind = 'operator';

-- name: account_by_id(account_id)^
-- A local account by its id.
select account_id, kind, member_id, roles
  from account
 where account_id = :account_id;

-- name: account_stands(account_id, password_hash, second_factor)$
-- Whether an account still has a password and a second factor and is not disabled; nobody changes that until the transaction ends.
select true
  from account
 where account_id = :account_id
   and password_hash = :password_hash
   and second_factor is not distinct from :second_factor
   and disabled_at is null
   for share;

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

-- name: forget_login_failures(login_hash)!
-- How often a login was typed with a wrong password counts no more.
delete from login_failure
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

-- name: clients_of_partner(partner)
-- Every client of a partner.
select client_id
  from oauth_client
 where partner_id = :partner;
