-- name: store_coalition(coalition_id, name, timezone, settlement_currency, started_on, backdating_days)$
-- Create the coalition; null when there is one.
insert into coalition (coalition_id, name, timezone, settlement_currency, started_on, backdating_days)
values (:coalition_id, :name, :timezone, :settlement_currency, :started_on, :backdating_days)
on conflict do nothing
returning coalition_id;

-- name: store_programme(programme_id, code, name, issuer_id, custody, expires_after_months, refund_policy)$
-- Create a programme; null when its code is taken.
insert into programme (programme_id, code, name, issuer_id, custody, expires_after_months, refund_policy)
values (:programme_id, :code, :name, :issuer_id, :custody, :expires_after_months, :refund_policy)
on conflict do nothing
returning programme_id;

-- name: set_programme_terms(programme_id, pending_days, spend_most, spend_most_a_day, transferable, refund_policy)!
-- Change when a programme's points become available, how they can be spent, and, if given, what a return of spent ones may do.
update programme
   set pending_days = :pending_days,
       spend_most = :spend_most,
       spend_most_a_day = :spend_most_a_day,
       transferable = :transferable,
       refund_policy = coalesce(:refund_policy, refund_policy)
 where programme_id = :programme_id;

-- name: store_partner(partner_id, code, name, protocol, endpoint, disconnected, onboarded_at)$
-- Create a partner, or bring its name and connection up to date; answers its id.
insert into partner (partner_id, code, name, protocol, endpoint, onboarded_at)
values (:partner_id, :code, :name, :protocol, :endpoint, :onboarded_at)
on conflict (code) do update
  set name = excluded.name,
      protocol = case when not :disconnected then coalesce(excluded.protocol, partner.protocol) end,
      endpoint = case when not :disconnected then coalesce(excluded.endpoint, partner.endpoint) end
returning partner_id;

-- name: store_store(store_id, partner_id, code, name)!
-- Create a store, or rename it.
insert into store (store_id, partner_id, code, name)
values (:store_id, :partner_id, :code, :name)
on conflict (partner_id, code) do update
  set name = excluded.name;

-- name: latest_contract(partner_id, currency)^
-- The contract that begins last.
select version, valid_from
  from contract
 where partner_id = :partner_id
   and currency = :currency
 order by valid_from desc
 limit 1;

-- name: store_contract(contract_id, partner_id, programme_id, currency, version, valid_from, earn_rate_numerator, earn_rate_denominator, issue_price, redeem_price, service_fee, conversion_price, pending_days)$
-- Publish a contract, which is never changed afterwards; null when another one came first.
insert into contract (contract_id, partner_id, programme_id, currency, version, valid_from, earn_rate_numerator,
                      earn_rate_denominator, issue_price, redeem_price, service_fee, conversion_price, pending_days)
values (:contract_id, :partner_id, :programme_id, :currency, :version, :valid_from, :earn_rate_numerator,
        :earn_rate_denominator, :issue_price, :redeem_price, :service_fee, :conversion_price, :pending_days)
on conflict do nothing
returning contract_id;
