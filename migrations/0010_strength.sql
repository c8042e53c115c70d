-- depends: 0009_grants
-- What the ledger at full strength keeps: pending points, holds that run out and are captured in parts, transfers,
-- adjustments, limits, partners' credit, the outbox.

alter table programme
  add column pending_days int not null default 0 check (pending_days between 0 and 365),
  add column spend_most bigint check (spend_most > 0),
  add column spend_most_a_day bigint check (spend_most_a_day > 0),
  add column transferable boolean not null default true;

-- Null: as the programme says.
alter table contract add column pending_days int check (pending_days between 0 and 365);

-- `pending` are points that have not matured; `moved` are points that left by a transfer or an adjustment.
alter table lot drop constraint lot_check;
alter table lot
  add column pending bigint not null default 0 check (pending >= 0),
  add column moved bigint not null default 0 check (moved >= 0),
  add constraint lot_check check (original = remaining + held + pending + spent + expired + returned + moved);

-- An index on what is left would make every change of a lot write to every index of the table. The wallets that have
-- something to lose on a day are kept in a table of their own instead, written when a lot begins.
drop index lot_due;
create table expiry_due (
  programme_id uuid not null,
  expires_on date not null,
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  primary key (programme_id, expires_on, bucket, member_id)
);
insert into expiry_due (programme_id, expires_on, bucket, member_id)
select distinct programme_id, expires_on, bucket, member_id
  from lot
 where expires_on < 'infinity';

-- A wallet's history is read by its member's transactions.
drop index entry_of_wallet;

alter table transaction drop constraint transaction_kind_check;
alter table transaction add constraint transaction_kind_check
  check (kind in ('earning', 'return', 'redemption', 'reversal', 'conversion', 'transfer', 'adjustment', 'expiry'));
alter table entry drop constraint entry_account_check;
alter table entry add constraint entry_account_check
  check (account in ('funder', 'redeemer', 'exchange', 'custody', 'expired', 'transit', 'adjustments'));

-- `restored`: how many of the spent points a reversal gave back to their lot.
alter table lot_take drop constraint lot_take_effect_check;
alter table lot_take add constraint lot_take_effect_check check (effect in ('spent', 'returned', 'expired', 'repaid', 'moved'));
alter table lot_take add column restored bigint not null default 0 check (restored between 0 and points);

-- The base rate's explanation follows from the contract and the amount.
alter table purchase drop column explanation;

-- Whether issuing its points used the partner's credit, which returns then free again.
alter table purchase add column charged boolean not null default false;

-- Points of a purchase that are not available yet; `cancelled` of them went back before they matured.
create table maturing (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  lot_id uuid not null,
  member_id uuid not null,
  programme_id uuid not null,
  points bigint not null check (points > 0),
  cancelled bigint not null default 0 check (cancelled between 0 and points),
  matures_on date not null,
  matured_at timestamptz,
  primary key (bucket, transaction_id)
);
create index maturing_due on maturing (matures_on, bucket, transaction_id) where matured_at is null;

alter table redemption
  add column hold_id uuid,
  add column restored bigint not null default 0 check (restored between 0 and points);

create table reversal (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  redemption_id uuid not null,
  points bigint not null check (points > 0),
  primary key (bucket, transaction_id)
);
create index reversal_of_redemption on reversal (bucket, redemption_id);

-- `counted`: against what the wallet may spend on `day`. A hold is open until it is captured to the last point, released, or run out; what was not captured went back.
alter table hold drop constraint hold_state_check;
alter table hold
  add column membership_id uuid,
  add column captured bigint not null default 0,
  add column released bigint not null default 0,
  add column expires_at timestamptz,
  add column resolved_at timestamptz,
  add column reference text,
  add column day date,
  add column counted boolean not null default false;
update hold set captured = case state when 'captured' then points else 0 end,
                released = case state when 'released' then points else 0 end,
                resolved_at = case when state <> 'open' then placed_at end;
alter table hold
  add constraint hold_state_check check (state in ('open', 'captured', 'released', 'expired')),
  add constraint hold_adds_up check (captured >= 0 and released >= 0 and captured + released <= points
                                     and (state = 'open') = (captured + released < points));
create index hold_running_out on hold (expires_at) where state = 'open' and expires_at is not null;
alter table hold_lot
  add column captured bigint not null default 0,
  add column released bigint not null default 0,
  add constraint hold_lot_adds_up check (captured >= 0 and released >= 0 and captured + released <= points);
update hold_lot t set captured = case h.state when 'captured' then t.points else 0 end,
                      released = case h.state when 'released' then t.points else 0 end
  from hold h where h.bucket = t.bucket and h.hold_id = t.hold_id;

-- A transfer is two transactions, one in each member's bucket.
create table transfer (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  direction text not null check (direction in ('out', 'in')),
  other_member_id uuid not null,
  other_transaction_id uuid not null,
  programme_id uuid not null,
  points bigint not null check (points > 0),
  message text,
  primary key (bucket, transaction_id)
);

create table adjustment (
  bucket smallint not null check (bucket between 0 and 255),
  adjustment_id uuid not null,
  owner_id uuid not null,
  key text not null check (length(key) between 1 and 200),
  digest bytea not null,
  member_id uuid not null,
  programme_id uuid not null,
  partner_id uuid not null references partner,
  contract_id uuid not null references contract,
  points bigint not null check (points <> 0),
  reason text not null,
  state text not null check (state in ('awaiting_approval', 'posted', 'rejected')),
  requested_by uuid not null,
  requested_at timestamptz not null,
  decided_by uuid,
  decided_at timestamptz,
  occurred_at timestamptz not null,
  day date not null,
  expires_on date not null,
  primary key (bucket, adjustment_id),
  unique (owner_id, key),
  check ((state = 'awaiting_approval') = (decided_at is null)),
  check (decided_by is null or decided_by <> requested_by)
);
create index adjustment_awaiting on adjustment (requested_at) where state = 'awaiting_approval';

-- What a wallet spent on a day, where the programme has a daily limit.
create table spending (
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  programme_id uuid not null,
  day date not null,
  points bigint not null check (points >= 0),
  primary key (bucket, member_id, programme_id, day)
) with (fillfactor = 70);

-- A partner's credit: what it may owe, before it pays, for points issued since the limit was first set. Its use is spread over slots, so that no row
-- is one that everybody updates: a batch takes from its own slot, and only a slot that runs short has the rest of the
-- credit dealt out again, under the locks of all of them. Minor units, exact.
create table partner_credit (
  partner_id uuid primary key references partner,
  limit_minor bigint not null check (limit_minor >= 0),
  warn_percent int not null default 80 check (warn_percent between 1 and 100),
  set_at timestamptz not null
);
create table credit_slot (
  partner_id uuid not null references partner,
  slot smallint not null check (slot between 0 and 15),
  allotted numeric not null,
  used numeric not null default 0,
  primary key (partner_id, slot)
) with (fillfactor = 50);
create table credit_payment (
  owner_id uuid not null,
  key text not null check (length(key) between 1 and 200),
  partner_id uuid not null references partner,
  amount_minor bigint not null check (amount_minor > 0),
  reference text,
  paid_at timestamptz not null,
  primary key (owner_id, key)
);

-- What happened, a row a batch, written in the transaction that made it happen. Readers go by `xid`, up to the oldest
-- one still running, so that a commit that comes late is never passed over.
create table outbox (
  xid xid8 not null default pg_current_xact_id(),
  batch_id uuid not null default gen_random_uuid(),
  kind text not null,
  posted_at timestamptz not null,
  members uuid[] not null,
  transactions uuid[] not null,
  primary key (xid, batch_id)
);
-- Ids do not compress; trying to would cost more than the row.
alter table outbox alter column members set storage external, alter column transactions set storage external;
insert into outbox (kind, posted_at, members, transactions)
select kind, posted_at, array_agg(member_id order by transaction_id), array_agg(transaction_id order by transaction_id)
  from transaction
 group by kind, posted_at;
