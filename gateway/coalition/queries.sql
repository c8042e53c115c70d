-- name: changes()$
-- How often something of what follows was written.
select count(*)
  from coalition_change;

-- name: coalition()^
-- The one coalition of this database.
select coalition_id, name, timezone, settlement_currency, started_on, backdating_days
  from coalition;

-- name: programmes()
-- Every programme.
select programme_id, code, name, issuer_id, custody, expires_after_months, refund_policy, pending_days,
       spend_most, spend_most_a_day, transferable
  from programme
 order by code;

-- name: partners()
-- Every partner, and whether its purchases use up a credit.
select p.partner_id, p.code, p.name, p.status, p.protocol, p.endpoint,
       exists (select from partner_credit c where c.partner_id = p.partner_id) as on_credit
  from partner p
 order by p.code;

-- name: stores()
-- Every store.
select store_id, partner_id, code, name
  from store
 order by partner_id, code;

-- name: contracts()
-- Every contract, the latest first.
select contract_id, partner_id, programme_id, currency, version, valid_from, earn_rate_numerator,
       earn_rate_denominator, issue_price, redeem_price, service_fee, conversion_price, pending_days
  from contract
 order by partner_id, currency, valid_from desc;

-- name: rates()
-- Every conversion rate, the latest first.
select rate_id, source_id, target_id, take, give, minimum, increment, valid_from
  from conversion_rate
 order by source_id, target_id, valid_from desc;

-- name: set_partner_status(code, status)$
-- Suspend a partner, or let it in again; answers its id, null where there is none.
update partner
   set status = :status
 where code = :code
returning partner_id;
