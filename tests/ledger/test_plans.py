"""The plans of the hot statements, at a size where a wrong one would show: a million entries."""

import asyncpg
import pytest

from gateway.embedded import EmbeddedPostgres
from tests.conftest import create_database

MEMBERS = 20_000
TRANSACTIONS = 1_000_000

FILL = f"""
set session_replication_role = replica;
create temporary table ids as
  select n, (n % 256)::smallint as bucket,
         (lpad(to_hex(n), 30, '0') || lpad(to_hex(n % 256), 2, '0'))::uuid as id
    from generate_series(1, {MEMBERS}) n;
create unique index on ids (n);
insert into wallet (bucket, member_id, programme_id, available)
select bucket, id, '00000000-0000-0000-0000-000000000001', 50 from ids;
insert into lot (bucket, lot_id, member_id, programme_id, funder_id, contract_id, expires_on, original, remaining)
select i.bucket, ('1' || lpad(to_hex(i.n * 10 + m), 29, '0') || lpad(to_hex(i.bucket::int), 2, '0'))::uuid, i.id,
       '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002',
       '00000000-0000-0000-0000-000000000003', date '2026-01-31' + m * 31, 10, 10
  from ids i, generate_series(1, 5) m;
insert into expiry_due (programme_id, expires_on, bucket, member_id)
select programme_id, expires_on, bucket, member_id from lot;
-- Indexes are made once the rows are there, which is quicker than row by row.
alter table transaction drop constraint transaction_pkey;
drop index transaction_of_member;
drop index transaction_receipt;
insert into transaction (bucket, transaction_id, kind, member_id, membership_id, partner_id, occurred_at, posted_at, period,
                         programme_id, account, contract_id, points, receipt, currency, amount_minor, expires_on, charged)
select i.bucket, ('2' || lpad(to_hex(k), 29, '0') || lpad(to_hex(i.bucket::int), 2, '0'))::uuid, 'earning', i.id, i.id,
       '00000000-0000-0000-0000-000000000002', now() - k * interval '1 second', now(), '2026-01-01',
       '00000000-0000-0000-0000-000000000001', 'funder', '00000000-0000-0000-0000-000000000003', 1, 'r' || k, 'USD', 100,
       '2026-07-31', false
  from generate_series(1, {TRANSACTIONS}) s (k) join ids i on i.n = k % {MEMBERS} + 1;
alter table transaction add primary key (transaction_id, bucket);
create index transaction_of_member on transaction (bucket, member_id, occurred_at desc, transaction_id desc);
create unique index transaction_receipt on transaction (partner_id, receipt) where receipt is not null;
insert into idempotency (owner_id, key, bucket, digest, transaction_id, answered_at)
select partner_id, transaction_id::text, bucket, '', transaction_id, now() from transaction limit 100000;
insert into lot_take (bucket, transaction_id, lot_id, effect, points)
select bucket, transaction_id, transaction_id, 'spent', 1 from transaction limit 100000;
analyze;
"""

GROWING = ("wallet", "lot", "transaction", "further_entry", "idempotency", "lot_take", "expiry_due")

EARN = """select e.answers
  from (select array_agg(1::smallint) as term, array_agg('new-' || w.member_id) as keys, array_agg('x'::bytea) as digests,
               array_agg(w.bucket) as buckets, array_agg(w.member_id) as members,
               array_agg(('3' || lpad(to_hex((random() * 1e15)::bigint), 29, '0') || lpad(to_hex(w.bucket::int), 2, '0'))::uuid) as transactions,
               array_agg(now()) as occurred, array_agg(1::bigint) as points, array_agg(null::text) as lines
          from (select * from wallet limit 1000) w) t
 cross join lateral post_earnings(now(), array['00000000-0000-0000-0000-000000000002']::uuid[],
  array['00000000-0000-0000-0000-000000000001']::uuid[], array['00000000-0000-0000-0000-000000000003']::uuid[],
  array['USD'], array['2026-01-01']::date[], array['2026-07-31']::date[], array[null]::date[], array[0.01]::numeric[],
  t.term, t.keys, t.digests, t.buckets, t.members, t.members, t.transactions, t.occurred, t.points, t.keys, t.members,
  t.points, t.lines, 0::smallint, false, false) e"""
EARN_INTO_NEW_LOTS = EARN.replace("2026-07-31", "2026-09-30").replace("'new-'", "'newer-'")
EARN_CAREFULLY = EARN.replace("false, false) e", "false, true) e").replace("'new-'", "'careful-'")
EARN_PENDING = EARN.replace("array[null]::date[]", "array['2026-01-29']::date[]").replace("'new-'", "'pending-'")
REDEEM = """select e.answers
  from (select array_agg(1::smallint) as term, array_agg('spend-' || w.member_id) as keys, array_agg('x'::bytea) as digests,
               array_agg(w.bucket) as buckets, array_agg(w.member_id) as members,
               array_agg(('4' || lpad(to_hex((random() * 1e15)::bigint), 29, '0') || lpad(to_hex(w.bucket::int), 2, '0'))::uuid) as transactions,
               array_agg(now()) as occurred, array_agg(15::bigint) as points, array_agg(null::text) as lines
          from (select * from wallet limit 1000) w) t
 cross join lateral post_redemptions(now(), array['00000000-0000-0000-0000-000000000002']::uuid[],
  array['00000000-0000-0000-0000-000000000001']::uuid[], array['00000000-0000-0000-0000-000000000003']::uuid[],
  array['2026-01-01']::date[], array['2026-01-15']::date[], array['2026-01-15']::date[], t.term, t.keys, t.digests, t.buckets, t.members, t.members,
  t.transactions, t.occurred, t.points, t.lines) e"""
EXPIRE = """select * from post_expiries(now(), '00000000-0000-0000-0000-000000000001', '2026-03-31', now(), '2026-01-01', 100)"""
ACTIVITY = """select a.transaction_id from (select bucket, member_id from wallet where bucket = 1 limit 1) w
 cross join lateral read_activity(null, w.member_id, w.bucket, w.member_id, null, now(), 'ffffffff-ffff-ffff-ffff-ffffffffffff', 20) a"""
WALLETS = """select r.available from (select array_agg(w.bucket) as buckets, array_agg(w.member_id) as members from (select * from wallet limit 100) w) w
 cross join lateral read_wallets(null, null, w.buckets, w.members) r"""


@pytest.fixture(scope="module")
async def million(server: EmbeddedPostgres, template: str) -> str:
    """A database with a million entries, made past the posting functions."""
    dsn = await create_database(server, "million", template)
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "insert into coalition values (gen_random_uuid(), 'c', 'UTC', 'USD', '2026-01-01', null);"
        "insert into partner values ('00000000-0000-0000-0000-000000000002', 'aa', 'A', 'active', null, null, now());"
        "insert into programme (programme_id, code, name, custody, refund_policy)"
        " values ('00000000-0000-0000-0000-000000000001', 'MER', 'm', 'ledger', 'allow_debt')"
    )
    await connection.execute(FILL, timeout=120)
    await connection.close()
    return dsn


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("earn", EARN),
        ("earn into new lots", EARN_INTO_NEW_LOTS),
        ("earn carefully", EARN_CAREFULLY),
        ("earn pending points", EARN_PENDING),
        ("redeem", REDEEM),
        ("expire", EXPIRE),
        ("activity", ACTIVITY),
        ("wallets", WALLETS),
    ],
)
async def test_a_hot_statement_never_reads_a_growing_table_from_end_to_end(million: str, name: str, statement: str) -> None:
    connection = await asyncpg.connect(million)
    counted = (
        "select relname, seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as read "
        "from pg_stat_xact_user_tables where relname = any($1)"
    )
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("set local enable_seqscan = off")  # the test's own choice of wallets reads no table whole either
        if statement in (ACTIVITY, WALLETS):  # read past the wall, by the wallets that its role may not choose from
            await connection.execute("create policy choose on wallet for select to gateway_reader using (true); set local role gateway_reader")
        before = {row["relname"]: row for row in await connection.fetch(counted, GROWING)}
        await connection.fetch(statement)
        after = await connection.fetch(counted, GROWING)
        await transaction.rollback()
    finally:
        await connection.close()
    for row in after:
        assert row["seq_scan"] == before[row["relname"]]["seq_scan"], row["relname"]
        # A thousand items touch a few rows each; a walk through an index would read hundreds of thousands.
        assert row["read"] - before[row["relname"]]["read"] <= 30_000, row["relname"]
