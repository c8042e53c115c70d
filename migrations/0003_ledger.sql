-- depends: 0002_members
-- The ledger: append-only double entry. An entry holds both its sides, a member's wallet and an account, so it
-- balances by construction and touches one wallet.
--
-- Only posting functions write these tables, so they carry no foreign keys: a check a row would cost more than
-- the row. `gateway verify` proves that nothing refers to what is not there.

create table period (
  month date primary key check (month = date_trunc('month', month)),
  state text not null default 'open' check (state in ('open', 'closing', 'closed', 'approved', 'settled')),
  closed_at timestamptz
);

-- Never below zero: points that a return could not take back are `owed`.
create table wallet (
  bucket smallint not null check (bucket between 0 and 255),
  member_id uuid not null,
  programme_id uuid not null,
  available bigint not null default 0 check (available >= 0),
  pending bigint not null default 0 check (pending >= 0),
  held bigint not null default 0 check (held >= 0),
  owed bigint not null default 0 check (owed >= 0),
  primary key (bucket, member_id, programme_id)
) with (fillfactor = 70);

-- `expires_on` is the last day on which the points can be spent, 'infinity' where they never expire.
create table lot (
  bucket smallint not null check (bucket between 0 and 255),
  lot_id uuid not null,
  member_id uuid not null,
  programme_id uuid not null,
  funder_id uuid not null,
  contract_id uuid not null,
  expires_on date not null,
  original bigint not null check (original >= 0),
  remaining bigint not null check (remaining >= 0),
  held bigint not null default 0 check (held >= 0),
  spent bigint not null default 0 check (spent >= 0),
  expired bigint not null default 0 check (expired >= 0),
  returned bigint not null default 0 check (returned >= 0),
  primary key (bucket, lot_id),
  unique (bucket, member_id, programme_id, expires_on, funder_id, contract_id),
  check (original = remaining + held + spent + expired + returned)
) with (fillfactor = 70);

-- What the expiry job looks for: lots with something left, by the day they run out.
create index lot_due on lot (programme_id, expires_on, bucket, member_id) where remaining > 0;

create table transaction (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  kind text not null check (kind in ('earning', 'return', 'redemption', 'conversion', 'expiry')),
  member_id uuid not null,
  membership_id uuid,
  partner_id uuid,
  occurred_at timestamptz not null,
  posted_at timestamptz not null,
  period date not null,
  missed_period date,
  primary key (bucket, transaction_id)
);

create index transaction_of_member on transaction (bucket, member_id, occurred_at desc, transaction_id desc);

-- `points`: + to the member's wallet, - from the account. `partner_id` names whose account it is, or, for an
-- account of the coalition (exchange, expired), the partner on whose behalf it moved.
create table entry (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  ordinal smallint not null,
  kind text not null,
  member_id uuid not null,
  programme_id uuid not null,
  account text not null check (account in ('funder', 'redeemer', 'exchange', 'custody', 'expired')),
  partner_id uuid not null,
  contract_id uuid not null,
  points bigint not null check (points <> 0),
  period date not null,
  primary key (bucket, transaction_id, ordinal)
);

create index entry_of_wallet on entry (bucket, member_id, programme_id);

-- Which lot a movement took from: every redeemed point is traced to its funder. `repaid` are points that came
-- in while the member owed, and went to the debt at once.
create table lot_take (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  lot_id uuid not null,
  effect text not null check (effect in ('spent', 'returned', 'expired', 'repaid')),
  points bigint not null check (points > 0),
  primary key (bucket, transaction_id, lot_id, effect)
);

create table purchase (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  member_id uuid not null,
  membership_id uuid not null,
  partner_id uuid not null,
  programme_id uuid not null,
  contract_id uuid not null,
  store_id uuid,
  receipt text not null,
  currency text not null,
  amount_minor bigint not null check (amount_minor >= 0),
  points bigint not null check (points >= 0),
  expires_on date not null,
  lines jsonb,
  explanation jsonb not null,
  returned_minor bigint not null default 0,
  returned_points bigint not null default 0 check (returned_points between 0 and points),
  returns int not null default 0,
  primary key (bucket, transaction_id),
  check (returned_minor between 0 and amount_minor)
) with (fillfactor = 90);

-- A till's receipt is posted once a partner.
create table receipt (
  partner_id uuid not null,
  receipt text not null,
  bucket smallint not null,
  transaction_id uuid not null,
  primary key (partner_id, receipt)
);

create table purchase_return (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  purchase_id uuid not null,
  amount_minor bigint not null check (amount_minor >= 0),
  points bigint not null check (points >= 0),
  owed bigint not null check (owed >= 0),
  lines jsonb,
  primary key (bucket, transaction_id)
);

create index purchase_return_of_purchase on purchase_return (bucket, purchase_id);

create table redemption (
  bucket smallint not null check (bucket between 0 and 255),
  transaction_id uuid not null,
  membership_id uuid not null,
  partner_id uuid not null,
  programme_id uuid not null,
  points bigint not null check (points > 0),
  reference text,
  primary key (bucket, transaction_id)
);

-- The first answer to every key. The owner is a partner or a member. It lies in the bucket of the membership it
-- is about; owner and key come first so that a key used for another member is found as well.
create table idempotency (
  owner_id uuid not null,
  key text not null check (length(key) between 1 and 200),
  bucket smallint not null check (bucket between 0 and 255),
  digest bytea not null,
  transaction_id uuid,
  refusal text,
  answered_at timestamptz not null,
  primary key (owner_id, key, bucket),
  check ((transaction_id is null) <> (refusal is null))
);

-- Points set aside; a hold reserves lots, so that they cannot expire under it.
create table hold (
  bucket smallint not null check (bucket between 0 and 255),
  hold_id uuid not null,
  member_id uuid not null,
  programme_id uuid not null,
  partner_id uuid not null,
  points bigint not null check (points > 0),
  state text not null default 'open' check (state in ('open', 'captured', 'released')),
  placed_at timestamptz not null,
  primary key (bucket, hold_id)
);

create index hold_open on hold (bucket, member_id, programme_id) where state = 'open';

create table hold_lot (
  bucket smallint not null check (bucket between 0 and 255),
  hold_id uuid not null,
  lot_id uuid not null,
  points bigint not null check (points > 0),
  primary key (bucket, hold_id, lot_id),
  foreign key (bucket, hold_id) references hold
);

-- Sums of entries that each batch appends; settlement reads these, not millions of entries.
-- `transactions` and `amount_minor` count the purchases of an earning, whatever points they brought.
create table delta (
  delta_id uuid primary key,
  period date not null,
  kind text not null,
  programme_id uuid not null,
  account text not null,
  partner_id uuid not null,
  contract_id uuid not null,
  points bigint not null,
  transactions bigint not null,
  amount_minor bigint not null
);

create index delta_of_period on delta (period);
