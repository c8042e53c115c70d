-- name: begin_closing(month)$
-- Bring a month to closing; answers its state, or the first earlier month that is not closed.
select begin_closing(:month);

-- name: finish_closing(month, at)!
-- The month is settled: closed.
select finish_closing(:month, :at);

-- name: period(month)^
-- One period.
select month, state, closed_at
  from period
 where month = :month;

-- name: sums_of_period(month)
-- What the batches of a month add up to, by what settlement prices.
select kind, programme_id, account, partner_id, contract_id, sum(points) as points,
       sum(transactions) as transactions, sum(amount_minor) as amount_minor
  from delta
 where period = :month
 group by kind, programme_id, account, partner_id, contract_id
 order by kind, programme_id, account, partner_id, contract_id;

-- name: standing_of_programmes(month)
-- What members hold and owe at the end of a month: entries up to it, a wallet at a time. For a currency that a
-- partner keeps it is what lies in the partner's custody.
select g.programme_id,
       coalesce(sum(greatest(w.points, 0)), 0) as outstanding,
       coalesce(sum(greatest(-w.points, 0)), 0) as debt
  from programme g
  left join (
    select e.programme_id, e.bucket, e.member_id,
           sum(case when e.account = 'custody' then -e.points
                    when p.custody = 'ledger' then e.points else 0 end) as points
      from entry e
      join programme p on p.programme_id = e.programme_id
     where e.period <= :month
     group by e.programme_id, e.bucket, e.member_id) w on w.programme_id = g.programme_id
 group by g.programme_id
 order by g.programme_id;

-- name: store_statement(statement_id, month, partner_id, purchases, amount_minor, issued, returns, returned, redemptions, redeemed, conversions, converted_out, converted_in, currency, net_minor, digest)!
-- Keep a partner's statement.
insert into statement (statement_id, period, partner_id, purchases, amount_minor, issued, returns, returned, redemptions,
                       redeemed, conversions, converted_out, converted_in, currency, net_minor, digest)
values (:statement_id, :month, :partner_id, :purchases, :amount_minor, :issued, :returns, :returned, :redemptions,
        :redeemed, :conversions, :converted_out, :converted_in, :currency, :net_minor, :digest);

-- name: store_line(line_id, statement_id, ordinal, kind, debtor_id, creditor_id, programme_id, contract_id, points, unit_price, gross_minor, currency)!
-- Keep a line of a statement.
insert into statement_line (line_id, statement_id, ordinal, kind, debtor_id, creditor_id, programme_id, contract_id,
                            points, unit_price, gross_minor, currency)
values (:line_id, :statement_id, :ordinal, :kind, :debtor_id, :creditor_id, :programme_id, :contract_id, :points,
        :unit_price, :gross_minor, :currency);

-- name: store_standing(month, programme_id, outstanding, debt, expired)!
-- Keep where a programme stood at the end of a period.
insert into period_programme (period, programme_id, outstanding, debt, expired)
values (:month, :programme_id, :outstanding, :debt, :expired);

-- name: statements_of_period(month)
-- The statements of a closed month.
select s.statement_id, s.period, s.partner_id, s.purchases, s.amount_minor, s.issued, s.returns, s.returned,
       s.redemptions, s.redeemed, s.conversions, s.converted_out, s.converted_in, s.currency, s.net_minor, s.digest
  from statement s
  join partner p on p.partner_id = s.partner_id
 where s.period = :month
 order by p.code;

-- name: statements_of_partner(partner, after, most)
-- A partner's statements, the latest first, before a month.
select statement_id, period, partner_id, purchases, amount_minor, issued, returns, returned, redemptions, redeemed,
       conversions, converted_out, converted_in, currency, net_minor, digest
  from statement
 where partner_id = :partner
   and period < :after
 order by period desc
 limit :most;

-- name: statement_by_id(statement_id)^
-- One statement.
select statement_id, period, partner_id, purchases, amount_minor, issued, returns, returned, redemptions, redeemed,
       conversions, converted_out, converted_in, currency, net_minor, digest
  from statement
 where statement_id = :statement_id;

-- name: lines_of_statements(statements)
-- The lines of statements, in order.
select statement_id, line_id, kind, debtor_id, creditor_id, programme_id, contract_id, points, unit_price, gross_minor,
       currency
  from statement_line
 where statement_id = any(:statements::uuid[])
 order by statement_id, ordinal;

-- name: standing_of_period(month)
-- Where the programmes stood at the end of a closed month.
select programme_id, outstanding, debt, expired
  from period_programme
 where period = :month
 order by programme_id;
