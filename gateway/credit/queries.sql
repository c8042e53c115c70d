-- name: credit_of(partner)^
-- A partner's credit, what is used of it and what it paid last, in minor units.
select c.limit_minor, c.warn_percent, c.last_paid_minor, sum(s.used) as used
  from partner_credit c
  join credit_slot s on s.partner_id = c.partner_id
 where c.partner_id = :partner
 group by c.limit_minor, c.warn_percent, c.last_paid_minor;

-- name: set_credit(partner, limit_minor, warn_percent, at)!
-- Set what a partner may owe.
select set_credit(:partner, :limit_minor, :warn_percent, :at);

-- name: pay_credit(owner, key, partner, amount_minor, reference, plain, at)$
-- A partner's payment frees its credit; false when the key was used before, null when the reference was, under another key.
select pay_credit(:owner, :key, :partner, :amount_minor, :reference, :plain, :at);

-- name: payment_by_reference(partner, plain)^
-- The payment of a partner that a bank calls so.
select reference, paid_at
  from credit_payment
 where partner_id = :partner
   and plain = :plain
 order by paid_at
 limit 1;

-- name: credit_payment(owner, key)^
-- The payment that a key recorded.
select partner_id, amount_minor, plain
  from credit_payment
 where owner_id = :owner
   and key = :key;
