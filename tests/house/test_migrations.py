"""Migrations: from empty, twice, and from every earlier version."""

import asyncpg
import pytest

from gateway.embedded import EmbeddedPostgres
from gateway.migrate import migrate, migrations_dir
from tests.conftest import create_database

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


async def test_the_applications_role_cannot_change_the_ledger(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"role": "gateway_app"})
    try:
        for table in ("wallet", "lot", "transaction", "entry", "lot_take", "purchase", "receipt", "purchase_return",
                      "redemption", "idempotency", "hold", "hold_lot", "delta", "period"):  # fmt: skip
            for statement in (f"delete from {table}", f"update {table} set bucket = 0", f"truncate {table}"):
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedColumnError)):
                    await connection.execute(statement)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"insert into {table} default values")
    finally:
        await connection.close()
