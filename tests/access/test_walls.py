"""Row-level security: every named query, run as a partner or a member that it is none of the business of, finds nothing."""

import importlib
import pkgutil
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

import gateway
from gateway import ids
from gateway.database import Database
from gateway.refusals import InputNotAccepted
from gateway.statements import Statement
from tests.access.consenting import agree
from tests.adjustment.test_adjust import adjust
from tests.conversion.exchanging import convert, quote
from tests.credit.test_credit import pay, set_credit
from tests.points import TRANSFER, ann_logs_in, bob_joins, hold, reverse, run_job, terms
from tests.privacy.test_people import ANN, UPDATE
from tests.settlement.test_close import close_through
from tests.world import World

# What everybody may read: the coalition's own tables, and what no row of anybody lies behind.
REFERENCE = {
    "coalition", "programmes", "partners", "stores", "rates", "period", "periods",
    "last_block", "block_at", "oldest_running", "programme_code_is_free", "zone_steps", "zone_ahead", "zone_is_known",
}  # fmt: skip
# The wall is about rows; these tables are not the reader's at all.
CLOSED = ("account", "oauth_client", "oauth_secret", "signing_key", "idempotency", "outbox", "token_family", "console_session")


def named_queries() -> dict[str, Statement]:
    """Every named query of every slice."""
    found: dict[str, Statement] = {}
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        sql = getattr(importlib.import_module(module.name), "sql", None)
        for statement in vars(sql).values() if sql else ():
            if isinstance(statement, Statement):
                found[f"{module.name}.{statement.name}"] = statement
    return found


QUERIES = named_queries()


async def lived_in(world: World) -> dict[str, list[dict[str, Any]]]:
    """Ann and Bob do something of every kind; answers the rows of every table of the public schema."""
    await bob_joins(world)
    await terms(world, spendMostADay=1_000)
    await world.record("400.00", receipt="r-1")
    redeemed = await world.redeem(20)
    await reverse(world, redeemed["redemption"]["id"], 5)
    await world.give_back("r-1", total={"amount": "10.00", "currency": "USD"})
    await hold(world, 15)
    given = {"idempotencyKey": "gift", "card": "CARD-2", "programme": "MER", "points": 7}
    ann = await ann_logs_in(world)
    await world.ask(ann, TRANSFER, i=given)
    await world.ask(ann, UPDATE, i=ANN)
    await agree(world, "balance:read")
    await convert(world, (await quote(world))["quote"]["id"])
    assert (await set_credit(world, "1000.00"))["errors"] == []
    assert (await pay(world, "1.00", "payment"))["errors"] == []
    await terms(world, pendingDays=3)
    await world.record("3.00")
    await adjust(world, 5)
    await close_through(world, 10)
    await run_job(world, "seal")
    tables = [r["relname"] for r in await world.sql("select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")]
    return {table: [dict(row) for row in await world.sql(f'select * from "{table}"')] for table in tables}


def arguments(statement: Statement, rows: dict[str, list[dict[str, Any]]], types: list[str]) -> list[dict[str, Any]]:
    """Arguments that would find rows: for each table, those of its first rows under the query's own words for them."""
    every: list[dict[str, Any]] = []
    for of_table in rows.values():
        for row in of_table[:1]:
            values = {**WORDS, **{k: v for k, v in row.items() if v is not None}}
            values |= {k.removesuffix("_id"): v for k, v in values.items()}
            values["ref"] = values.get("external_id")
            given = {name: _fit(name, kind, values, row) for name, kind in zip(statement.parameters, types, strict=True)}
            if given not in every and all(value is not MISSING for value in given.values()):
                every.append(given)
    return every


MISSING = object()
WORDS: dict[str, Any] = {"most": 50, "first": 50}
# PostgreSQL's types: what a value of each is in Python, and one to ask with where no column has it.
TYPES: dict[str, tuple[type, Any]] = {
    "bool": (bool, True), "bytea": (bytes, b"x"), "date": (date, date(2026, 10, 1)), "int2": (int, 1), "int4": (int, 50),
    "int8": (int, 50), "numeric": (Decimal, Decimal(1)), "text": (str, "0"), "uuid": (UUID, UUID(int=0)),
    "timestamptz": (datetime, datetime(2030, 1, 1, tzinfo=UTC)),
}  # fmt: skip


def _fit(name: str, kind: str, values: dict[str, Any], row: dict[str, Any]) -> Any:
    """A value of an argument's type, by its name where a column is called so, else any of the type."""
    single = kind.removeprefix("_")
    if single not in TYPES:
        return MISSING
    python, default = TYPES[single]
    named = [values[word] for word in (name, name.removesuffix("s"), name.removesuffix("es")) if word in values]
    found = next((value for value in [*named, *row.values()] if type(value) is python or (python is UUID and isinstance(value, UUID))), default)
    return [found] if kind != single else found


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(world.dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def reader_sees(database: Database, statement: Statement, given: dict[str, Any], who: tuple[UUID | None, UUID | None]) -> int:
    """How many rows a reader gets; none where the table is closed to it."""
    try:
        if "as_member" in statement.parameters:
            given = {name: value for name, value in given.items() if name not in ("as_partner", "as_member")}
            rows = await database.read_for(*who, statement, **given)
        else:
            async with database.reading_for(*who) as tx:
                rows = await tx.all(statement, **given)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError, asyncpg.DataError, asyncpg.PostgresSyntaxError):
        return 0
    except InputNotAccepted:  # a number that is too large, as some DataErrors are told
        return 0
    return sum(any(value not in (None, 0, False, [], "[]") for name, value in row.items() if name != "programme_id") for row in rows)


async def test_every_named_query_finds_nothing_for_a_partner_and_a_member_of_whom_it_is_no_business(
    world: World, database: Database
) -> None:
    rows = await lived_in(world)
    outsider = uuid4()
    wrong, found_by_own, ran = [], set(), 0
    fuel = next(r["partner_id"] for r in rows["partner"] if r["code"] == "fuel")
    ann = rows["card"][0]["member_id"]
    async with connected(world) as connection:
        for name, statement in QUERIES.items():
            if statement.name in REFERENCE or not statement.text.lstrip().lower().startswith(("select", "with")):
                continue
            if "select public." in statement.text or "nextval" in statement.text or "post_" in statement.name:
                continue
            prepared = await connection.prepare(statement.text)
            types = [p.name if p.kind != "array" else f"_{p.name.removesuffix('[]')}" for p in prepared.get_parameters()]
            for place, of_elements in re.findall(r"\$(\d+)::text::(\w+)\[\]", statement.text):
                types[int(place) - 1] = "_" + {"smallint": "int2", "int": "int4", "bigint": "int8"}.get(of_elements, of_elements)
            for given in arguments(statement, rows, types):
                ran += 1
                for who in ((outsider, outsider), (None, None)):
                    if await reader_sees(database, statement, given, who):
                        wrong.append((name, who, given))
                if name not in found_by_own and await reader_sees(database, statement, given, (fuel, ann)):
                    found_by_own.add(name)
    assert {name for name, *_ in wrong} == set(), wrong[:3]
    assert ran > 300
    # The wall is no wall if nobody gets through: the same arguments find rows for those whose business it is.
    assert len(found_by_own) > 15, sorted(found_by_own)


async def test_every_row_behind_the_wall_is_seen_by_those_whose_it_is_and_by_nobody_else(world: World, database: Database) -> None:
    rows = await lived_in(world)
    partners = {r["code"]: r["partner_id"] for r in rows["partner"]}
    ann = rows["card"][0]["member_id"]
    walled = await world.sql(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relrowsecurity"
        "   and has_table_privilege('gateway_reader', oid, 'select') order by 1"
    )
    assert len(walled) > 25

    async def seen(table: str, partner: UUID | None, member: UUID | None) -> int:
        async with database.reading_for(partner, member) as tx:
            return int(await tx.value(Statement("rows", f'select count(*) from "{table}"', (), "")))

    assert [row["relname"] for row in walled if not rows[row["relname"]]] == []
    for table in (row["relname"] for row in walled):
        for outsider in ((uuid4(), uuid4()), (None, None)):
            assert await seen(table, *outsider) == 0, table
        of_owners = [await seen(table, partner, None) for partner in partners.values()] + [await seen(table, None, ann)]
        assert any(of_owners), table
    for table in ("contract", "statement", "partner_credit", "credit_payment"):  # what is a partner's own, and no member's
        assert await seen(table, None, ann) == 0
        mine = [row for row in rows[table] if row["partner_id"] == partners["grocer"]]
        assert await seen(table, partners["grocer"], None) == len(mine) > 0
    for table in ("person", "consent"):  # what is a member's own
        assert await seen(table, None, ann) == len(rows[table]) > 0
        assert await seen(table, partners["airline"], None) == 0


Rows = dict[str, list[dict[str, Any]]]


def theirs(rows: Rows, partner: UUID | None, member: UUID | None) -> dict[str, Callable[[dict[str, Any]], bool]]:
    """Whose business the rows of each table are, said once more and in other words than the database's policies."""
    partner, member = partner or uuid4(), member or uuid4()
    joined = {m["member_id"] for m in rows["membership"] if m["partner_id"] == partner}
    memberships = {(m["bucket"], m["membership_id"]) for m in rows["membership"] if partner == m["partner_id"] or member == m["member_id"]}
    contact = {
        c["member_id"] for c in rows["consent"]
        if c["partner_id"] == partner and c["withdrawn_at"] is None and "contact" in c["data_classes"]
    }  # fmt: skip
    transactions = {
        (t["bucket"], t["transaction_id"]) for t in rows["transaction"]
        if member == t["member_id"] or partner == t["partner_id"] or (t["bucket"], t["membership_id"]) in memberships
    }  # fmt: skip
    holds = {h["hold_id"] for h in rows["hold"] if member == h["member_id"] or partner == h["partner_id"]}
    statements = {s["statement_id"] for s in rows["statement"] if s["partner_id"] == partner}

    def members(row: dict[str, Any]) -> bool:
        return bool(row["member_id"] == member)

    def partners(row: dict[str, Any]) -> bool:
        return bool(row["partner_id"] == partner)

    def held(row: dict[str, Any]) -> bool:
        return row["member_id"] == member or row["member_id"] in joined

    def happened(row: dict[str, Any]) -> bool:
        return (row["bucket"], row["transaction_id"]) in transactions  # of a gift, each side is its own member's

    def of_membership(row: dict[str, Any]) -> bool:
        return row["member_id"] == member or (row["bucket"], row["membership_id"]) in memberships

    return {
        **dict.fromkeys(("member", "card", "wallet", "lot"), held),
        **dict.fromkeys(("spending", "expiry_due"), members),
        "adjustment": lambda row: members(row) or (partners(row) and row["state"] == "posted"),
        **dict.fromkeys(("external_id", "contract", "statement", "partner_credit", "credit_slot", "credit_payment"), partners),
        **dict.fromkeys(("membership", "hold", "consent"), lambda row: members(row) or partners(row)),
        **dict.fromkeys(("transaction", "further_entry", "redemption", "reversal", "transfer", "sealed", "maturing"), happened),
        **dict.fromkeys(("quote", "conversion"), of_membership),
        "lot_take": lambda row: happened(row) or row["transaction_id"] in holds,
        "purchase_return": lambda row: (row["bucket"], row["purchase_id"]) in transactions,
        "hold_lot": lambda row: row["hold_id"] in holds,
        "statement_line": lambda row: row["statement_id"] in statements,
        "person": lambda row: members(row) or row["member_id"] in contact,
    }


async def test_each_partner_and_each_member_sees_its_own_rows_and_not_one_more(world: World, database: Database) -> None:
    await lived_in(world)
    # Bob is the grocer's alone, and something of every kind happens to him too; Ann lets the airline alone know her address.
    bob = {"externalId": "bob"}
    await terms(world, spendMostADay=1_000, pendingDays=3)
    await world.record("90.00", receipt="bobs", member=bob)
    await world.give_back("bobs", total={"amount": "1.00", "currency": "USD"})
    await reverse(world, (await world.redeem(3, "grocer", member=bob))["redemption"]["id"], 1, "grocer")
    await hold(world, 4, "grocer", member=bob)
    await agree(world, partner="airline", data_classes=("contact",), purpose="to write to you")
    walled = await world.sql(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relrowsecurity"
        "   and has_table_privilege('gateway_reader', oid, 'select') order by 1"
    )
    tables = [row["relname"] for row in walled]
    rows = {table: [dict(row) for row in await world.sql(f'select *, t::text as whole from "{table}" t')] for table in tables}
    partners = {r["code"]: r["partner_id"] for r in await world.sql("select code, partner_id from partner")}
    members = {r["number"]: r["member_id"] for r in rows["card"]}
    assert (len(partners), len(members)) == (3, 2)
    divided = set()
    for partner, member in [*((each, None) for each in partners.values()), *((None, each) for each in members.values())]:
        business = theirs(rows, partner, member)
        assert set(business) == set(tables)
        async with database.reading_for(partner, member) as tx:
            for table in tables:
                seen = await tx.all(Statement("rows", f'select t::text as whole from "{table}" t', (), ""))
                expected = [row["whole"] for row in rows[table] if business[table](row)]
                assert sorted(row["whole"] for row in seen) == sorted(expected), (table, partner, member)
                if 0 < len(expected) < len(rows[table]):
                    divided.add(table)
    # Where somebody sees some rows and not others, a wall that lets in whoever has anything there would show.
    undivided = {"adjustment", "credit_payment", "partner_credit", "credit_slot", "person", "quote", "conversion"}
    assert set(tables) - divided == undivided


async def test_every_table_has_the_wall_or_is_known_to_hold_nobodys_data(world: World) -> None:
    rows = await world.sql(
        "select relname, relrowsecurity and relforcerowsecurity as walled, has_table_privilege('gateway_reader', oid, 'select') as open"
        "  from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    nobodys = {row["relname"] for row in rows if not row["walled"]}
    assert {row["relname"] for row in rows if not row["walled"] and row["open"]} == {
        "coalition", "partner", "programme", "store", "conversion_rate", "period", "block",
    }  # fmt: skip
    assert all(not row["open"] for row in rows if row["relname"] in CLOSED)
    assert not any("member" in name for name in nobodys)
    columns = await world.sql(
        "select distinct table_name from information_schema.columns where table_schema = 'public' and column_name in ('member_id', 'membership_id')"
    )
    assert {row["table_name"] for row in columns} & nobodys == set()


async def test_neither_role_goes_past_the_wall_by_itself_or_writes_the_ledger(world: World) -> None:
    roles = await world.sql("select rolname, rolsuper, rolbypassrls from pg_roles where rolname like 'gateway\\_%'")
    assert [(r["rolsuper"], r["rolbypassrls"]) for r in roles] == [(False, False)] * 3
    ledger = ("wallet", "lot", "transaction", "entry", "further_entry", "lot_take", "purchase_return", "redemption", "hold", "delta", "idempotency", "block", "sealed", "outbox", "debt", "debt_moved")
    for role in ("gateway_app", "gateway_reader", "gateway_poster"):
        for table in ledger:
            for privilege in ("insert", "update", "delete", "truncate"):
                assert not (await world.sql(f"select has_table_privilege('{role}', '{table}', '{privilege}')"))[0][0], (role, table, privilege)
    written = await world.sql(
        "select count(*) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        "   and has_any_column_privilege('gateway_reader', oid, 'insert, update')"
    )
    assert written[0][0] == 0


async def test_the_role_that_posts_executes_posting_functions_and_nothing_else(world: World) -> None:
    executable = "select proname from pg_proc where pronamespace = 'public'::regnamespace and has_function_privilege($1, oid, 'execute')"
    posting = {row[0] for row in await world.sql(executable, "gateway_poster")}
    assert posting == {
        "post_earnings", "post_returns", "post_redemptions", "post_reversal", "post_holds", "post_captures", "post_release",
        "post_run_out_holds", "post_maturities", "post_expiries", "post_expiry_notices", "post_transfer", "post_adjustment",
        "place_hold", "release_hold", "post_conversion", "set_credit", "pay_credit", "seal_block", "fold_deltas",
        "keep_refusal", "place_debts", "deal_moved_debts",
    }  # fmt: skip
    assert posting.isdisjoint({row[0] for row in await world.sql(executable, "gateway_app")})
    assert posting.isdisjoint({row[0] for row in await world.sql(executable, "gateway_reader")})
    tables = await world.sql(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm', 'S')"
        "   and has_table_privilege('gateway_poster', oid, 'select, insert, update, delete, truncate, references, trigger')"
    )
    assert tables == []
    async with connected(world) as connection:
        await connection.execute("set role gateway_poster")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from wallet")


async def test_functions_with_their_owners_rights_look_at_nothing_their_caller_made(world: World) -> None:
    rows = await world.sql("select proname, proconfig from pg_proc where pronamespace = 'public'::regnamespace and prosecdef")
    assert len(rows) > 15
    for row in rows:
        assert "search_path=pg_catalog, public, pg_temp" in row["proconfig"], row["proname"]
    async with connected(world) as connection:
        await connection.execute("grant temporary on database " + world.dsn.rsplit("/", 1)[1].split("?")[0] + " to gateway_app")
        await connection.execute("set role gateway_app")
        await connection.execute(
            "create function pg_temp.evil(v pg_catalog.text) returns boolean language plpgsql as"
            " $$ begin raise exception 'it ran'; end $$;"
            "create domain pg_temp.text as pg_catalog.text check (pg_temp.evil(value))"
        )
        deed = "select public.note_deed(now(), 'public', null, 'c', null, 'a', 'ok', '{}', '')"
        await connection.execute(deed)
    assert (await world.sql("select count(*) from audit_log where action = 'a'"))[0][0] == 1


async def test_who_reads_is_forgotten_with_the_transaction(world: World, database: Database) -> None:
    await world.record("5.00")
    ann = (await world.sql("select member_id from card"))[0][0]
    wallets = QUERIES["gateway.wallets.history.wallets_of_members"]
    given = {"buckets": [ids.bucket_of(ann)], "members": [ann]}
    assert await reader_sees(database, wallets, given, (None, ann)) == 1
    for _ in range(20):
        assert await reader_sees(database, wallets, given, (None, uuid4())) == 0
    async with connected(world) as connection:
        await connection.execute("set role gateway_reader")
        assert await connection.fetch("select * from wallet") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("update wallet set available = 1000000")
