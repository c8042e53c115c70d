-- depends: 0006_conversion
-- Settlement: what a closed month came to. Written once, by closing; running it again must give the same.

create table statement (
  statement_id uuid primary key,
  period date not null references period,
  partner_id uuid not null references partner,
  purchases bigint not null,
  amount_minor bigint not null,
  issued bigint not null,
  returns bigint not null,
  returned bigint not null,
  redemptions bigint not null,
  redeemed bigint not null,
  conversions bigint not null,
  converted_out bigint not null,
  converted_in bigint not null,
  currency text not null,
  net_minor bigint not null,
  digest text not null,
  unique (period, partner_id)
);

-- `debtor_id` and `creditor_id` are null for the coalition. `gross_minor` is never negative: who owes whom says it.
create table statement_line (
  line_id uuid primary key,
  statement_id uuid not null references statement,
  ordinal int not null,
  kind text not null check (kind in ('issue', 'return', 'fee', 'redeem', 'conversion')),
  debtor_id uuid references partner,
  creditor_id uuid references partner,
  programme_id uuid not null references programme,
  contract_id uuid not null references contract,
  points bigint not null,
  unit_price numeric not null,
  gross_minor bigint not null check (gross_minor >= 0),
  currency text not null,
  unique (statement_id, ordinal)
);

-- Where each programme stood at the end of a period: what members hold, and what they owe.
create table period_programme (
  period date not null references period,
  programme_id uuid not null references programme,
  outstanding bigint not null,
  debt bigint not null,
  expired bigint not null,
  primary key (period, programme_id)
);

-- Bring a month from open to closing, with every month before it closed already. The exclusive lock waits for the
-- batches that hold the period shared; after it nothing more is posted into the month.
-- Answers 'closing' or 'closed', or the first earlier month that is still open.
create function begin_closing(of_month date) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  found_state text;
  earlier date;
begin
  insert into public.period (month)
  select generate_series((select c.started_on from public.coalition c), of_month, interval '1 month')::date
  on conflict do nothing;

  select p.state into found_state from public.period p where p.month = of_month for update;
  if found_state is null then
    return 'before the coalition';
  end if;
  if found_state <> 'open' then
    return found_state;
  end if;
  select min(p.month) into earlier from public.period p where p.month < of_month and p.state in ('open', 'closing');
  if earlier is not null then
    return earlier::text;
  end if;
  update public.period p set state = 'closing' where p.month = of_month;
  return 'closing';
end $$;

create function finish_closing(of_month date, at timestamptz) returns void
language sql volatile security definer
set search_path = pg_catalog, public
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  update public.period set state = 'closed', closed_at = at where month = of_month and state = 'closing'
$$;
