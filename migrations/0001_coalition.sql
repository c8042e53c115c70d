-- The coalition: its programmes, partners, stores and dated contracts. Small reference tables.

create table coalition (
  coalition_id uuid primary key,
  name text not null,
  timezone text not null,
  settlement_currency text not null check (settlement_currency ~ '^[A-Z]{3}$'),
  started_on date not null check (started_on = date_trunc('month', started_on)),
  backdating_days int check (backdating_days > 0)
);

-- One database serves one coalition.
create unique index coalition_is_one on coalition ((true));

create table partner (
  partner_id uuid primary key,
  code text not null unique check (code ~ '^[a-z][a-z0-9_-]{1,30}$'),
  name text not null,
  status text not null default 'active' check (status in ('active', 'suspended')),
  protocol text,
  endpoint text,
  onboarded_at timestamptz not null
);

create table programme (
  programme_id uuid primary key,
  code text not null unique check (code ~ '^[A-Z][A-Z0-9]{1,9}$'),
  name text not null,
  issuer_id uuid references partner,
  custody text not null check (custody in ('ledger', 'partner')),
  expires_after_months int check (expires_after_months between 1 and 1200),
  refund_policy text not null check (refund_policy in ('allow_debt', 'within_balance')),
  check (custody = 'ledger' or issuer_id is not null)
);

create table store (
  store_id uuid primary key,
  partner_id uuid not null references partner,
  code text not null,
  name text not null,
  unique (partner_id, code)
);

-- A contract is in force from its first day until the next one of the same partner and currency begins,
-- so two can never be in force at once. Prices are in major units of `currency` per point.
create table contract (
  contract_id uuid primary key,
  partner_id uuid not null references partner,
  programme_id uuid not null references programme,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  version int not null check (version > 0),
  valid_from date not null,
  earn_rate_numerator bigint not null check (earn_rate_numerator >= 0),
  earn_rate_denominator bigint not null check (earn_rate_denominator > 0),
  issue_price numeric not null check (issue_price >= 0),
  redeem_price numeric not null check (redeem_price >= 0),
  service_fee numeric not null check (service_fee >= 0),
  conversion_price numeric not null check (conversion_price >= 0),
  unique (partner_id, currency, version),
  unique (partner_id, currency, valid_from)
);

create table conversion_rate (
  rate_id uuid primary key,
  source_id uuid not null references programme,
  target_id uuid not null references programme,
  take bigint not null check (take > 0),
  give bigint not null check (give > 0),
  minimum bigint not null check (minimum > 0),
  increment bigint not null check (increment > 0),
  valid_from timestamptz not null,
  check (source_id <> target_id),
  unique (source_id, target_id, valid_from)
);
