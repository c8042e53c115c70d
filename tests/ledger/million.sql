-- A coalition of 20,000 members with a million entries, and what hangs on them, made past the posting functions. All of them lie
-- in eight buckets, so that a walk through a whole bucket shows as well.
set session_replication_role = replica;
insert into coalition values (gen_random_uuid(), 'c', 'UTC', 'USD', '2026-01-01', null);
insert into partner values ('00000000-0000-0000-0000-000000000002', 'aa', 'A', 'active', null, null, now());
insert into programme (programme_id, code, name, custody, refund_policy)
values ('00000000-0000-0000-0000-000000000001', 'MER', 'm', 'ledger', 'allow_debt');
insert into contract (contract_id, partner_id, programme_id, currency, version, valid_from, earn_rate_numerator, earn_rate_denominator,
                      issue_price, redeem_price, service_fee, conversion_price)
values ('00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001',
        'USD', 1, '2026-01-01', 1, 1, 0.01, 0.008, 0.01, 0);

create function pg_temp.id(what text, n bigint, bucket smallint) returns uuid immutable language sql
return (what || lpad(to_hex(n), 29, '0') || lpad(to_hex(bucket::int), 2, '0'))::uuid;

create temporary table ids as
select n, (n % 8)::smallint as bucket, pg_temp.id('0', n, (n % 8)::smallint) as id from generate_series(1, 20000) n;
create unique index on ids (n);
analyze ids;

insert into member (bucket, member_id, since) select bucket, id, now() from ids;
insert into membership (bucket, membership_id, member_id, partner_id, external_id, status, since)
select bucket, id, id, '00000000-0000-0000-0000-000000000002', 'x' || n, 'active', now() from ids;
insert into external_id (partner_id, external_id, bucket, membership_id)
select '00000000-0000-0000-0000-000000000002', 'x' || n, bucket, id from ids;
insert into card (number, bucket, member_id, status, since) select 'c' || n, bucket, id, 'active', now() from ids;
insert into wallet (bucket, member_id, programme_id, available)
select bucket, id, '00000000-0000-0000-0000-000000000001', 50 from ids;
insert into lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original, remaining)
select i.bucket, pg_temp.id('1', i.n * 10 + m, i.bucket), i.id, '00000000-0000-0000-0000-000000000001',
       '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000003', date '2026-01-31' + m * 31, 10, 10
  from ids i, generate_series(1, 5) m;
insert into expiry_due (programme_id, expires_on, bucket, member_id)
select programme_id, expires_on, bucket, member_id from lot;

-- Indexes are made once the rows are there, which is quicker than row by row.
alter table transaction drop constraint transaction_pkey;
drop index transaction_of_member;
drop index transaction_receipt;
insert into transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at, posted_at, period,
                         programme_id, account, contract_id, points, receipt, currency, amount_minor, expires_on, charged)
select i.bucket, pg_temp.id('2', k, i.bucket), 'earning', i.id, i.id, '00000000-0000-0000-0000-000000000002',
       now() - k * interval '1 second', now(), '2026-01-01', '00000000-0000-0000-0000-000000000001', 'funder',
       '00000000-0000-0000-0000-000000000003', 1, 'r' || k, 'USD', 100, date '2026-01-31' + (1 + k % 5) * 31, false
  from generate_series(1, 1000000) s (k) join ids i on i.n = k % 20000 + 1;
-- Half a million more, ten of a kind for each member: redemptions and what else takes points.
insert into transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at, posted_at, period,
                         programme_id, account, contract_id, points)
select i.bucket, pg_temp.id(k.code, i.n * 10 + m, i.bucket), k.kind, i.id, i.id, '00000000-0000-0000-0000-000000000002',
       now() - m * interval '1 hour', now(), '2026-01-01',
       case when k.points is not null then '00000000-0000-0000-0000-000000000001'::uuid end, k.account,
       case when k.points is not null then '00000000-0000-0000-0000-000000000003'::uuid end, k.points
  from ids i, generate_series(1, 5) m,
       (values ('3', 'redemption', 'redeemer', -1), ('4', 'return', 'funder', -1), ('5', 'reversal', 'redeemer', 1),
               ('6', 'transfer', null, null), ('7', 'expiry', null, null)) k (code, kind, account, points);
alter table transaction add primary key (transaction_id, bucket);
create index transaction_of_member on transaction (bucket, member_id, occurred_at desc, transaction_id desc);
create unique index transaction_receipt on transaction (partner_id, receipt) where receipt is not null;
insert into further_entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id, contract_id, points,
                           period)
select t.bucket, t.transaction_id, 1, t.kind, t.member_id, '00000000-0000-0000-0000-000000000001',
       case t.kind when 'transfer' then 'transit' else 'expired' end, '00000000-0000-0000-0000-000000000002',
       '00000000-0000-0000-0000-000000000003', -1, '2026-01-01'
  from transaction t where t.kind in ('transfer', 'expiry');
insert into idempotency (owner_id, key, bucket, digest, transaction_id, answered_at)
select partner_id, transaction_id::text, bucket, '', transaction_id, now() from transaction
 order by transaction.transaction_id limit 200000;
insert into lot_take (bucket, transaction_id, lot_id, effect, points)
select i.bucket, pg_temp.id(k.code, i.n * 10 + m, i.bucket), pg_temp.id('1', i.n * 10 + m, i.bucket), k.effect, 1
  from ids i, generate_series(1, 5) m,
       (values ('3', 'spent'), ('4', 'returned'), ('6', 'moved'), ('7', 'expired'), ('8', 'repaid')) k (code, effect);

insert into hold (bucket, hold_id, member_id, programme_id, partner_id, membership_id, points, captured, state, placed_at, expires_at,
                  resolved_at, day, counted)
select i.bucket, pg_temp.id('8', i.n * 10 + m, i.bucket), i.id, '00000000-0000-0000-0000-000000000001',
       '00000000-0000-0000-0000-000000000002', i.id, 2, case when m = 1 and i.n <= 2000 then 0 else 2 end,
       case when m = 1 and i.n <= 2000 then 'open' else 'captured' end, now() - interval '1 day',
       case when i.n <= 1000 then now() + interval '1 hour' else now() - interval '1 minute' end,
       case when m = 1 and i.n <= 2000 then null else now() end, now()::date, false
  from ids i, generate_series(1, 5) m;
insert into hold_lot (bucket, hold_id, lot_id, points, captured)
select h.bucket, h.hold_id, pg_temp.id('1', i.n * 10 + m, i.bucket), 2, h.captured
  from ids i, generate_series(1, 5) m, hold h
 where h.bucket = i.bucket and h.hold_id = pg_temp.id('8', i.n * 10 + m, i.bucket);
update lot set held = 2, original = 12 where lot_id in (select r.lot_id from hold_lot r where r.captured = 0);
update wallet w set held = 2 from hold h
 where h.state = 'open' and w.bucket = h.bucket and w.member_id = h.member_id;

insert into redemption (bucket, transaction_id, membership_id, partner_id, programme_id, points)
select bucket, transaction_id, membership_id, partner_id, programme_id, 1 from transaction where kind = 'redemption';
update lot set spent = 1, original = original + 1;
insert into reversal (bucket, transaction_id, redemption_id, points)
select i.bucket, pg_temp.id('5', i.n * 10 + m, i.bucket), pg_temp.id('3', i.n * 10 + m, i.bucket), 1
  from ids i, generate_series(2, 5) m;
insert into purchase_return (bucket, transaction_id, purchase_id, amount_minor, points, owed, lines)
select t.bucket, t.transaction_id, pg_temp.id('2', i.n - 1 + 20000 * m, i.bucket), 10, 1, 0, '[]'
  from ids i, generate_series(1, 5) m, transaction t
 where t.bucket = i.bucket and t.transaction_id = pg_temp.id('4', i.n * 10 + m, i.bucket);
insert into transfer (bucket, transaction_id, direction, other_member_id, other_transaction_id, programme_id, points)
select bucket, transaction_id, 'out', member_id, transaction_id, '00000000-0000-0000-0000-000000000001', 1
  from transaction where kind = 'transfer';
-- Half of all purchases once waited for their day; those of the last week still do, and a thousand are due.
insert into maturing (bucket, transaction_id, lot_id, member_id, programme_id, points, matures_on, matured_at)
select t.bucket, t.transaction_id, l.lot_id, t.member_id, t.programme_id, 1,
       case when k <= 1000 then date '2026-01-01' when k <= 50000 then date '2030-01-01' else date '2026-01-01' end,
       case when k > 50000 then now() end
  from generate_series(1, 500000) s (k)
  join ids i on i.n = k % 20000 + 1
  join transaction t on t.bucket = i.bucket and t.transaction_id = pg_temp.id('2', k, i.bucket)
  join lot l on l.bucket = t.bucket and l.member_id = t.member_id and l.expires_on = t.expires_on;
update lot l set pending = p.points, original = l.original + p.points
  from (select bucket, lot_id, sum(points) as points from maturing where matured_at is null group by 1, 2) p
 where l.bucket = p.bucket and l.lot_id = p.lot_id;
update wallet w set pending = p.points
  from (select bucket, member_id, sum(points) as points from maturing where matured_at is null group by 1, 2) p
 where w.bucket = p.bucket and w.member_id = p.member_id;
insert into outbox (xid, kind, posted_at, members, transactions)
select (k::text)::xid8, 'earning', now(), array[i.id], array[pg_temp.id('2', k, i.bucket)]
  from generate_series(1, 100000) s (k) join ids i on i.n = k % 20000 + 1;
analyze;
