-- name: deltas_equal_entries()
-- What settlement reads is what the entries add up to, by period, kind, account, partner and contract.
select coalesce(d.period, e.period) as period, coalesce(d.kind, e.kind) as kind,
       coalesce(d.account, e.account) as account, coalesce(d.partner_id, e.partner_id) as partner,
       d.points, e.points as in_entries
  from (select period, kind, programme_id, account, partner_id, contract_id, sum(points) as points
          from delta group by 1, 2, 3, 4, 5, 6) d
  full join (
        select period, kind, programme_id, account, partner_id, contract_id, sum(points) as points
          from entry group by 1, 2, 3, 4, 5, 6) e
    on (e.period, e.kind, e.programme_id, e.account, e.partner_id, e.contract_id)
       = (d.period, d.kind, d.programme_id, d.account, d.partner_id, d.contract_id)
 where coalesce(d.points, 0) <> coalesce(e.points, 0);

-- name: deltas_count_what_was_recorded()
-- What settlement reads of purchases, returns, redemptions, reversals and adjustments, their number and amount by
-- partner, is what was recorded.
select coalesce(d.period, p.period) as period, coalesce(d.kind, p.kind) as kind, coalesce(d.partner_id, p.partner_id) as partner,
       d.transactions, p.transactions as recorded, d.amount_minor, p.amount_minor as recorded_minor
  from (select period, kind, partner_id, sum(transactions) as transactions, sum(amount_minor) as amount_minor
          from delta
         where kind in ('earning', 'return', 'redemption', 'reversal', 'adjustment')
         group by period, kind, partner_id) d
  full join (
        select t.period, t.kind, t.partner_id, count(*) as transactions,
               coalesce(sum(coalesce(t.amount_minor, r.amount_minor)), 0) as amount_minor
          from transaction t
          left join purchase_return r on r.bucket = t.bucket and r.transaction_id = t.transaction_id
         where t.kind in ('earning', 'return', 'redemption', 'reversal', 'adjustment')
         group by t.period, t.kind, t.partner_id) p
    on (p.period, p.kind, p.partner_id) = (d.period, d.kind, d.partner_id)
 where (coalesce(d.transactions, 0), coalesce(d.amount_minor, 0)) <> (coalesce(p.transactions, 0), coalesce(p.amount_minor, 0));

-- name: statements_equal_the_sums()
-- A closed month's statements are what its sums come to: nothing was posted into it afterwards.
select s.period, s.partner_id, s.purchases, d.purchases as purchases_now, s.issued, d.issued as issued_now, s.returned,
       d.returned as returned_now, s.redeemed, d.redeemed as redeemed_now, s.converted_in, d.converted_in as converted_in_now
  from statement s
  left join (
    select period, partner_id,
           coalesce(sum(transactions) filter (where kind = 'earning'), 0) as purchases,
           coalesce(sum(amount_minor) filter (where kind = 'earning'), 0) as amount_minor,
           coalesce(sum(points) filter (where kind = 'earning'), 0) as issued,
           coalesce(sum(transactions) filter (where kind = 'return'), 0) as returns,
           coalesce(-sum(points) filter (where kind = 'return'), 0) as returned,
           coalesce(sum(transactions) filter (where kind = 'redemption'), 0) as redemptions,
           coalesce(-sum(points) filter (where kind = 'redemption'), 0) as redeemed,
           coalesce(sum(transactions) filter (where kind = 'conversion' and account = 'custody'), 0) as conversions,
           coalesce(-sum(points) filter (where kind = 'conversion' and account = 'exchange' and points < 0), 0) as converted_out,
           coalesce(-sum(points) filter (where kind = 'conversion' and account = 'custody'), 0) as converted_in
      from delta
     group by period, partner_id) d on d.period = s.period and d.partner_id = s.partner_id
 where (s.purchases, s.amount_minor, s.issued, s.returns, s.returned, s.redemptions, s.redeemed, s.conversions, s.converted_out,
        s.converted_in)
       <> (coalesce(d.purchases, 0), coalesce(d.amount_minor, 0), coalesce(d.issued, 0), coalesce(d.returns, 0),
           coalesce(d.returned, 0), coalesce(d.redemptions, 0), coalesce(d.redeemed, 0), coalesce(d.conversions, 0),
           coalesce(d.converted_out, 0), coalesce(d.converted_in, 0));

-- name: standings_equal_the_entries()
-- Where a programme stood at the end of a closed month is what its entries up to it come to: nothing was posted into it, or
-- taken out of it, afterwards.
with moved as (
  select e.programme_id, e.bucket, e.member_id, e.period,
         sum(case when e.account = 'custody' then -e.points when g.custody = 'ledger' then e.points else 0 end) as points,
         -sum(e.points) filter (where e.kind = 'expiry') as expired
    from entry e
    join programme g on g.programme_id = e.programme_id
   group by e.programme_id, e.bucket, e.member_id, e.period),
stood as (
  select m.programme_id, p.month, m.bucket, m.member_id, sum(m.points) as points,
         coalesce(sum(m.expired) filter (where m.period = p.month), 0) as expired
    from period p
    join moved m on m.period <= p.month
   where p.state not in ('open', 'closing')
   group by m.programme_id, p.month, m.bucket, m.member_id)
select k.period, k.programme_id, k.outstanding, s.outstanding as outstanding_now, k.debt, s.debt as debt_now, k.expired,
       s.expired as expired_now
  from period_programme k
  left join (
    select programme_id, month, sum(greatest(points, 0)) as outstanding, sum(greatest(-points, 0)) as debt, sum(expired) as expired
      from stood
     group by programme_id, month) s on s.programme_id = k.programme_id and s.month = k.period
 where (k.outstanding, k.debt, k.expired) <> (coalesce(s.outstanding, 0), coalesce(s.debt, 0), coalesce(s.expired, 0));

-- name: lines_equal_the_sums()
-- The lines of a closed month charge the points that its sums come to, each kind under its contract.
select coalesce(l.period, d.period) as period, coalesce(l.partner_id, d.partner_id) as partner,
       coalesce(l.kind, d.kind) as kind, l.points, d.points as in_sums
  from (
    select s.period, s.partner_id, n.contract_id, n.kind, n.points
      from statement_line n
      join statement s on s.statement_id = n.statement_id) l
  full join (
    select s.period, s.partner_id, s.contract_id, x.kind, x.points
      from (
        select period, partner_id, contract_id,
               coalesce(sum(points) filter (where kind = 'earning'), 0) as issued,
               coalesce(-sum(points) filter (where kind = 'return'), 0) as returned,
               coalesce(-sum(points) filter (where kind = 'redemption'), 0) as redeemed,
               coalesce(sum(points) filter (where kind = 'reversal'), 0) as reversed,
               coalesce(-sum(points) filter (where kind = 'conversion' and account = 'custody'), 0) as converted
          from delta
         where period in (select p.month from period p where p.state not in ('open', 'closing'))
         group by period, partner_id, contract_id) s
     cross join lateral (
        values ('issue', s.issued), ('return', s.returned), ('fee', s.issued - s.returned), ('redeem', s.redeemed),
               ('reversal', s.reversed), ('conversion', s.converted)) x (kind, points)
     where x.points <> 0) d
    on (d.period, d.partner_id, d.contract_id, d.kind) = (l.period, l.partner_id, l.contract_id, l.kind)
 where coalesce(l.points, 0) <> coalesce(d.points, 0);

-- name: lines_follow_their_prices()
-- Each line is its points at the contract's price, rounded once, half-even, to the cent; lines of a statement add up
-- to its net.
select l.line_id, l.kind, l.points, l.gross_minor, x.exact
  from statement_line l
  join contract c on c.contract_id = l.contract_id
 cross join lateral (
    select abs(l.points) * 100 * case l.kind
             when 'issue' then c.issue_price
             when 'return' then c.issue_price
             when 'redeem' then c.redeem_price
             when 'reversal' then c.redeem_price
             when 'conversion' then c.conversion_price
             else c.issue_price * c.service_fee end as exact) x
 where abs(l.gross_minor - x.exact) > 0.5
    or (abs(l.gross_minor - x.exact) = 0.5 and l.gross_minor % 2 <> 0)
union all
select s.statement_id, 'net', 0, s.net_minor,
       coalesce(sum(case when l.debtor_id = s.partner_id then l.gross_minor else -l.gross_minor end), 0)
  from statement s
  left join statement_line l on l.statement_id = s.statement_id
 group by s.statement_id, s.net_minor
having s.net_minor <> coalesce(sum(case when l.debtor_id = s.partner_id then l.gross_minor else -l.gross_minor end), 0);

-- name: used_credit_equals_what_was_charged()
-- What a partner has used of its credit is what its purchases on credit cost it, less what came back of them, with what it bears of
-- members' debts, once that is dealt, less what it paid; in minor units, unrounded.
select s.partner_id, s.used, coalesce(c.charged, 0) as charged, coalesce(d.borne, 0) as borne, coalesce(m.freed, 0) as to_be_freed,
       coalesce(p.paid, 0) as paid
  from (select partner_id, sum(used) as used from credit_slot group by partner_id) s
  left join (
    select b.partner_id, sum((b.points - coalesce(r.points, 0)) * k.issue_price * 100) as charged
      from purchase b
      join contract k on k.contract_id = b.contract_id
      left join (
        select bucket, purchase_id, sum(points) as points
          from purchase_return
         group by bucket, purchase_id) r on r.bucket = b.bucket and r.purchase_id = b.transaction_id
     where b.charged
     group by b.partner_id) c on c.partner_id = s.partner_id
  left join (
    select b.partner_id, sum(b.points * k.issue_price * 100) as borne
      from debt b
      join contract k on k.contract_id = b.contract_id
     where b.charged
     group by b.partner_id) d on d.partner_id = s.partner_id
  left join (
    select partner_id, sum(freed) as freed
      from debt_moved
     group by partner_id) m on m.partner_id = s.partner_id
  left join (
    select partner_id, sum(amount_minor) as paid
      from credit_payment
     group by partner_id) p on p.partner_id = s.partner_id
 where s.used <> coalesce(c.charged, 0) + coalesce(d.borne, 0) + coalesce(m.freed, 0) - coalesce(p.paid, 0);
