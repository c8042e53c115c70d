"""Migrations: from empty, twice, and from every earlier version."""

import asyncio
import copy
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.credit.credit import plain_reference
from gateway.database import Database
from gateway.earning.purchases import purchases_by_id
from gateway.earning.record import earning_terms
from gateway.embedded import EmbeddedPostgres
from gateway.ids import new_id_in
from gateway.ledger.items import Earning, Key, Redemption, Return, Terms
from gateway.ledger.post import Ledger
from gateway.ledger.post import sql as posting
from gateway.ledger.verify import verify
from gateway.migrate import DatabaseOutOfReach, migrate, migrations_dir
from tests.conftest import create_database
from tests.founding import describe_coalition

NAMES = [path.stem for path in sorted(migrations_dir().glob("*.sql"))]

SHAPE = """
select table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || coalesce(' ' || column_default, '')
  from information_schema.columns where table_schema = 'public' and table_name not like '%yoyo%'
union all
select p.oid::regprocedure::text || md5(p.prosrc) || p.prosecdef from pg_proc p where p.pronamespace = 'public'::regnamespace
union all
select indexdef from pg_indexes where schemaname = 'public' and tablename not like '%yoyo%'
union all
select grantee || ' ' || privilege_type || ' ' || table_name from information_schema.role_table_grants
 where grantee = 'gateway_app'
order by 1
"""


async def shape(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch(SHAPE)]
    finally:
        await connection.close()


async def test_from_empty_and_twice_changes_nothing_the_second_time(server: EmbeddedPostgres) -> None:
    dsn = await create_database(server, "migrated_twice")
    assert migrate(dsn) == NAMES
    once = await shape(dsn)
    assert migrate(dsn) == []
    assert await shape(dsn) == once


@pytest.fixture(scope="module")
async def versions(server: EmbeddedPostgres) -> list[str]:
    """The database at each version, to copy from: each is a copy of the one before and one migration more."""
    made = ["template1"]
    for number, name in enumerate(NAMES, 1):
        dsn = await create_database(server, f"version_{number}", made[-1])
        assert migrate(dsn, only_first=number) == [name]
        made.append(f"version_{number}")
    return made


@pytest.mark.parametrize("version", range(1, len(NAMES)))
async def test_from_each_earlier_version_the_result_is_the_same(
    server: EmbeddedPostgres, versions: list[str], dsn: str, version: int
) -> None:
    older = await create_database(server, f"migrated_from_{version}", versions[version])
    assert migrate(older) == NAMES[version:]
    assert await shape(older) == await shape(dsn)


async def test_a_payment_noted_before_its_reference_was_kept_in_plain_is_found_by_it_and_whoever_had_that_already_keeps_it(
    server: EmbeddedPostgres, versions: list[str], dsn: str
) -> None:
    older = await create_database(server, "paid_before", versions[NAMES.index("0054_references_in_plain")])
    connection = await asyncpg.connect(older)
    partner = uuid4()
    await connection.execute("insert into partner (partner_id, code, name, onboarded_at) values ($1, 'grocer', 'Grocer', now())", partner)
    noted = "insert into credit_payment (owner_id, key, partner_id, amount_minor, reference, paid_at)"
    await connection.execute(f"{noted} values ($1, 'k', $1, 100, 'RF18  Bank-77', now()), ($1, 'none', $1, 5, null, now())", partner)
    several = ("INV 2026–11", "Straße 7", "x\u2212y", "ΟΔΟΣ 5", "\uff32F\ufe58 9")
    for reference in several:
        await connection.execute(f"{noted} values ($1, 'z' || $2, $1, 5, $2, now())", partner, reference)
    assert migrate(older)[0] == "0054_references_in_plain"
    plain = "select plain from credit_payment where key < 'z' order by key"
    kept = [row[0] for row in await connection.fetch(plain)]
    assert kept == ["rf18bank-77", None]
    # Once more, as where an earlier form of migration 0049 did it.
    await connection.execute((migrations_dir() / "0054_references_in_plain.sql").read_text())
    assert [row[0] for row in await connection.fetch(plain)] == kept
    found = dict(await connection.fetch("select reference, plain from credit_payment where key >= 'z'"))
    assert found == {reference: plain_reference(reference) for reference in several}
    await connection.close()
    assert await shape(older) == await shape(dsn)


async def test_the_applications_role_cannot_change_the_ledger(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"role": "gateway_app"})
    try:
        for table in ("wallet", "lot", "transaction", "further_entry", "lot_take", "purchase_return",
                      "redemption", "idempotency", "hold", "hold_lot", "delta", "period"):  # fmt: skip
            for statement in (f"delete from {table}", f"update {table} set bucket = 0", f"truncate {table}"):
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedColumnError)):
                    await connection.execute(statement)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"insert into {table} default values")
    finally:
        await connection.close()


@pytest.mark.parametrize("version", [30, 35])
async def test_what_was_posted_before_purchases_moved_into_their_transactions_still_counts(
    server: EmbeddedPostgres, versions: list[str], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = await create_database(server, f"posted_before_{version}", versions[version])
    database = Database(dsn, 2)
    await database.open()
    coalition = await describe_coalition(database)
    terms = earning_terms(coalition, next(iter(coalition.contracts.values()))[0], coalition.day_of(SystemClock().now()))
    member = new_id_in(7)

    def purchase(key: str, receipt: str, points: int = 10) -> Earning:
        lines = '[{"amount_minor": 1000}]'
        return Earning(Key(terms.partner_id, key, b"x"), terms, member, member, SystemClock().now(), points, receipt, None, 1_000, lines)

    def taking_back(key: str, of: UUID, version: int) -> Return:
        moment = SystemClock().now()
        return Return(Key(terms.partner_id, key, b"x"), back, member, of, version, moment, 400, 4, None)

    back = msgspec.structs.replace(terms, day=terms.month)
    with monkeypatch.context() as before:  # its functions did not say when they had posted
        for named in ("post_earnings", "post_returns"):
            statement = copy.copy(getattr(posting, named))
            statement.text = statement.text.replace("select at,", "select now() as at,")
            before.setattr(posting, named, statement)
        ledger = Ledger(database, SystemClock(), 1)
        first, nothing = await ledger.earn([purchase("k1", "r1"), purchase("k0", "r0", 0)])
        await ledger.take_back([taking_back("b1", first.transaction_id, 0)])
    assert "0036_purchases" in migrate(dsn)
    ledger = Ledger(database, SystemClock(), 1)
    again, taken, after = await ledger.earn([purchase("k1", "r1"), purchase("k2", "r1"), purchase("k3", "r2")])
    (stale,) = await ledger.take_back([taking_back("b2", first.transaction_id, 0)])
    await ledger.take_back([taking_back("b2", first.transaction_id, 1)])
    async with database.reading() as tx:
        found = await purchases_by_id(tx, [first.transaction_id, nothing.transaction_id, after.transaction_id])
    kept = sorted(found.values(), key=lambda purchase: purchase.receipt)
    connection = await asyncpg.connect(dsn)
    further = await connection.fetchval("select count(*) from further_entry where kind = 'earning'")
    await connection.close()
    broken = [check.name async for check in verify(database) if not check.holds]
    await database.close()
    assert (again.transaction_id, again.replayed) == (first.transaction_id, True)
    assert taken.refusal == "RECEIPT_ALREADY_POSTED"
    assert stale.refusal == "STALE"
    said = [(p.receipt, p.points, p.total.amount_minor, p.contract_id, p.returned_minor, p.returns) for p in kept]
    assert said == [
        ("r0", 0, 1_000, terms.contract_id, 0, 0),
        ("r1", 10, 1_000, terms.contract_id, 800, 2),
        ("r2", 10, 1_000, terms.contract_id, 0, 0),
    ]
    assert [p.lines[0].amount_minor for p in kept] == [1_000, 1_000, 1_000]
    assert further == 0
    assert broken == ["memberships_are_the_members_own"]  # nobody was enrolled here


async def test_a_debt_that_was_moved_before_comes_back_to_who_left_it(server: EmbeddedPostgres, versions: list[str]) -> None:
    dsn = await create_database(server, "owed_before", versions[NAMES.index("0059_whose_debt")])
    database, now = Database(dsn, 2), SystemClock().now()
    await database.open()
    coalition = await describe_coalition(database)
    contracts = {each[0].partner_id: each[0] for each in coalition.contracts.values()}
    one, other = (earning_terms(coalition, contract, coalition.day_of(now)) for contract in list(contracts.values())[:2])
    assert one.programme_id == other.programme_id
    one = msgspec.structs.replace(one, on_credit=True)
    member, ledger = new_id_in(7), Ledger(database, SystemClock(), 1)
    connection = await asyncpg.connect(dsn)
    await connection.execute("select set_credit($1, 1000, 80, now())", one.partner_id)

    async def buy_and_give_back(terms: Terms, spent: int) -> None:
        name = terms.partner_id.hex
        key, back = (Key(terms.partner_id, text + name, b"x") for text in "kb")
        (bought,) = await ledger.earn([Earning(key, terms, member, member, now, 10, name, None, 1_000, None)])
        await connection.execute("select free_repaid_credit()")
        taking = msgspec.structs.replace(terms, day=terms.month, today=coalition.day_of(now))
        if spent:
            spending = Redemption(Key(terms.partner_id, "s", b"x"), taking, member, member, now, spent, None)
            assert [answer.refusal for answer in await ledger.redeem([spending])] == [None]
        await ledger.take_back([Return(back, taking, member, bought.transaction_id or member, 0, now, 1_000, 10, None)])

    await buy_and_give_back(one, 10)
    await buy_and_give_back(other, 0)
    credit = "select sum(used) from credit_slot"
    assert await connection.fetchval(credit) == 0
    assert migrate(dsn)[0] == "0059_whose_debt"
    borne = await connection.fetch("select partner_id, charged, points from debt")
    assert [tuple(row) for row in borne] == [(one.partner_id, True, 10)]
    assert await connection.fetchval(credit) == 10 * one.issue_price * 100
    await connection.close()
    assert [check.name async for check in verify(database) if not check.holds] == ["memberships_are_the_members_own"]
    await database.close()


async def test_a_rate_of_all_times_is_one_that_began_long_ago_after_an_upgrade(server: EmbeddedPostgres, versions: list[str]) -> None:
    dsn = await create_database(server, "endless_before", versions[NAMES.index("0065_rates_begin")])
    database = Database(dsn, 2)
    await database.open()
    coalition = await describe_coalition(database)
    connection = await asyncpg.connect(dsn)
    more = "insert into conversion_rate select gen_random_uuid(), source_id, target_id, take, 77, minimum, increment, $1 from conversion_rate limit 1"
    for end in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        await connection.execute(more, end)
    assert migrate(dsn)[0] == "0065_rates_begin"
    async with database.reading() as tx:
        after = await read_coalition(tx)
    (pair,) = coalition.rates
    for moment, give in ((datetime(1970, 1, 1, tzinfo=UTC), 77), (datetime(2026, 6, 1, tzinfo=UTC), 100)):
        found = after.rate_of(*pair, moment)
        assert found is not None
        assert found.give == give
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(more, end)
    await connection.close()
    await database.close()


async def test_gifts_that_were_sealed_with_every_name_are_what_was_sealed_after_an_upgrade_and_later_ones_name_nobody(
    server: EmbeddedPostgres, versions: list[str]
) -> None:
    dsn = await create_database(server, "given_before", versions[NAMES.index("0062_whose_points_a_gift_is_of")])
    connection = await asyncpg.connect(dsn)
    partner, contract = uuid4(), uuid4()

    async def give(n: int, posted_at: datetime) -> None:
        gift = UUID(int=n)
        await connection.execute(
            "insert into transaction (bucket, transaction_id, kind, member_id, occurred_at, posted_at, period)"
            " values (0, $1, 'transfer', $1, $2, $2, '2026-11-01')", gift, posted_at,
        )  # fmt: skip
        await connection.execute(
            "insert into further_entry (bucket, transaction_id, ordinal, kind, member_id, programme_id, account, partner_id, contract_id,"
            " points, period) values (0, $1, 1, 'transfer', $1, $1, 'transit', $2, $3, 5, '2026-11-01')", gift, partner, contract,
        )  # fmt: skip

    moment = datetime(2026, 11, 26, tzinfo=UTC)
    await give(1, moment)
    sealed = "select content from sealed_contents where transaction_id = $1"
    before = await connection.fetchval(sealed, UUID(int=1))
    assert str(partner) in before
    assert "0062_whose_points_a_gift_is_of" in migrate(dsn)
    await give(2, moment + timedelta(microseconds=1))
    await connection.reload_schema_state()
    assert await connection.fetchval(sealed, UUID(int=1)) == before
    after = await connection.fetchval(sealed, UUID(int=2))
    assert str(partner) not in after
    assert str(contract) not in after
    await connection.close()


async def test_the_chain_of_the_audit_log_goes_on_over_what_was_noted_before(server: EmbeddedPostgres, versions: list[str]) -> None:
    dsn = await create_database(server, "noted_before", versions[36])
    connection = await asyncpg.connect(dsn)
    await connection.execute("select note_deed(now(), 'operator', gen_random_uuid(), 'c', 't', 'look', 'ok', '\\x01')")
    assert "0037_about" in migrate(dsn)
    await connection.execute("select note_deed(now(), 'operator', null, 'c', 't', 'look', 'ok', '{}', '\\x02')")
    await connection.execute("select note_deed(now(), 'operator', null, 'c', 't', 'look', 'ok', '{mem_a}', '\\x02')")
    database = Database(dsn, 2)
    await database.open()
    assert [check.name async for check in verify(database) if not check.holds] == []
    await connection.execute("update audit_log set about = '{mem_b}' where number = 3")
    assert [check.name async for check in verify(database) if not check.holds] == ["audit_log_is_chained"]
    await database.close()
    await connection.close()


async def test_who_is_killed_while_it_migrates_leaves_a_database_with_which_the_next_one_goes_on(
    server: EmbeddedPostgres, dsn: str
) -> None:
    """Before the first migration, between two, or in the middle of one: nobody says when."""
    made = await create_database(server, "migrated_in_pieces")
    environment = os.environ | {"DATABASE_URL": made}
    connection = await asyncpg.connect(made)
    for wanted in (0, 1, 9, 20, 35, 50):
        command = (sys.executable, "-m", "gateway", "migrate")
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.DEVNULL)
        async with asyncio.timeout(30):
            if wanted == 0:  # while yoyo makes its own tables
                while await connection.fetchval("select to_regclass('yoyo_lock') is null"):
                    await asyncio.sleep(0.001)
            while (count := await applied(connection)) < wanted and process.returncode is None:
                if wanted == 50 and count >= 40 and not connection.is_in_transaction():
                    await connection.execute("begin; lock table purchase_return in access share mode")  # which 0058 waits for
                await asyncio.sleep(0.001)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert connection.is_in_transaction()
    await connection.close()
    assert 50 <= len(NAMES) - len(await asyncio.to_thread(migrate, made)) < len(NAMES)
    assert await shape(made) == await shape(dsn)


async def test_who_may_not_migrate_is_told_so_and_who_has_to_wait_waits(
    server: EmbeddedPostgres, capfd: pytest.CaptureFixture[str]
) -> None:
    made = await create_database(server, "not_for_everybody")
    connection = await asyncpg.connect(made)
    await connection.execute("create role stranger login")
    await connection.execute("select pg_advisory_lock(hashtext('gateway migrate'))")
    waiting = asyncio.create_task(asyncio.to_thread(migrate, made, 1))
    while "waiting for it" not in capfd.readouterr().out:
        await asyncio.sleep(0.01)
    assert not waiting.done()
    await connection.execute("select pg_advisory_unlock(hashtext('gateway migrate'))")
    assert await waiting == NAMES[:1]
    with pytest.raises(DatabaseOutOfReach, match=r"may not bring the database up to date.*permission denied"):
        await asyncio.to_thread(migrate, made.replace("//gateway@", "//stranger@"))
    assert await applied(connection) == 1
    await connection.execute("drop role stranger")
    await connection.close()


async def test_a_machine_that_vanishes_while_it_migrates_is_given_up_too(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = await create_database(server, "vanishes")
    told = []

    def connect(self: PostgresqlPsycopgBackend, uri: Any) -> Any:
        connection = connected(self, uri)
        shown = "select current_setting('idle_in_transaction_session_timeout'), current_setting('idle_session_timeout')"
        told.append(connection.execute(shown).fetchone())
        connection.rollback()
        return connection

    connected = PostgresqlPsycopgBackend.connect
    monkeypatch.setattr(PostgresqlPsycopgBackend, "connect", connect)
    assert migrate(f"{dsn}&options=-c%20jit%3Doff", only_first=1) == NAMES[:1]
    assert told == [("10s", "10s")]  # before its first transaction


async def test_a_database_that_goes_away_while_one_waits_to_migrate_is_told(server: EmbeddedPostgres) -> None:
    made = await create_database(server, "gone_meanwhile")
    connection = await asyncpg.connect(made)
    await connection.execute("select pg_advisory_lock(hashtext('gateway migrate'))")
    waiting = asyncio.create_task(asyncio.to_thread(migrate, made, 1))
    ends = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"
    while not await connection.fetchval(ends):
        await asyncio.sleep(0.01)
    with pytest.raises(DatabaseOutOfReach, match="went away"):
        await waiting
    await connection.close()


async def applied(connection: asyncpg.Connection) -> int:
    """How many migrations are noted."""
    if await connection.fetchval("select to_regclass('_yoyo_migration') is null"):
        return 0
    return await connection.fetchval("select count(*)::int from _yoyo_migration")
