"""The plans of the hot statements, as the gateway sends them, at a size where a wrong one would show: a million entries."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway.activity.graph import sql as activity
from gateway.database.tx import APPLICATION_ROLE, POSTER_ROLE, READER_ROLE
from gateway.earning.purchases import sql as earning
from gateway.embedded import EmbeddedPostgres
from gateway.events.outbox import sql as events
from gateway.hold.hold import sql as holding
from gateway.ids import bucket_of, new_id_in
from gateway.ledger.post import sql as ledger
from gateway.members.lookup import sql as members
from gateway.redemption.redeem import sql as redeeming
from gateway.statements import Statement
from gateway.wallets.history import sql as wallets
from tests.conftest import create_database
from tests.world import World

PARTNER, PROGRAMME, CONTRACT = UUID(int=2), UUID(int=1), UUID(int=3)
JANUARY, APRIL = date(2026, 1, 1), date(2026, 4, 4)
SIZE = 1_000
BUCKETS = 8
PAGES_AN_ITEM = 100
"""Of what posts: the rows an item changes, in every index. A walk through a table or a bucket touches thousands."""
PAGES_A_ROW = 15
PAGES_OF_MEMBER = 700
"""Of what is asked about one member, who has 75 transactions."""


def made(what: int, n: int, member: int) -> UUID:
    """The id of a row of `million.sql`: what it is, its number, and its member's bucket."""
    return UUID(f"{what}{n:029x}{member % BUCKETS:02x}")


BATCH = range(1, SIZE + 1)
MEMBERS = [made(0, n, n) for n in BATCH]
FIRST_OF_EACH = [n * 10 + 1 for n in BATCH]

# The purchase of each that was made last but 19, of which nothing came back.
PURCHASES = {"buckets": [n % BUCKETS for n in BATCH], "transactions": [made(2, 200_000 + n - 1, n) for n in BATCH]}


def batch(statement: Statement, **given: Any) -> tuple[Statement, dict[str, Any]]:
    """A batch of a thousand items, one a member, with what it takes of the terms once."""
    buckets = [bucket_of(member) for member in MEMBERS]
    now = datetime.now(UTC)
    everything: dict[str, Any] = {
        "at": now, "partners": [PARTNER], "programmes": [PROGRAMME], "contracts": [CONTRACT], "currencies": ["USD"],
        "months": [JANUARY], "expiries": [date(2026, 3, 3)], "maturities": [None], "prices": [0.01],
        "days": [date(2026, 1, 15)], "todays": [date(2026, 1, 15)],
        "term": [1] * SIZE, "keys": [str(uuid4()) for _ in BATCH], "digests": [b"x"] * SIZE, "buckets": buckets,
        "members": MEMBERS, "memberships": MEMBERS, "transactions": [new_id_in(bucket) for bucket in buckets],
        "occurred": [now] * SIZE, "points": [1] * SIZE, "receipts": [str(uuid4()) for _ in BATCH], "stores": [None] * SIZE,
        "amounts": [1] * SIZE, "lines": [None] * SIZE, "refs": [None] * SIZE, "until": [now + timedelta(hours=1)] * SIZE,
        "purchases": PURCHASES["transactions"], "versions": [0] * SIZE,
        "holds": [made(8, n, m) for n, m in zip(FIRST_OF_EACH, BATCH, strict=True)],
        "slot": 0, "dealing": False, "careful": False, **given,
    }  # fmt: skip
    return statement, {name: everything[name] for name in statement.parameters}


def one(statement: Statement, **given: Any) -> tuple[Statement, dict[str, Any]]:
    """Something that is posted for one member by itself."""
    member, other = made(0, 7, 7), made(0, 8, 8)
    now = datetime.now(UTC)
    everything: dict[str, Any] = {
        "at": now, "owner": PARTNER, "key": str(uuid4()), "digest": b"x", "bucket": 7, "member": member, "other": other,
        "transaction": new_id_in(7), "other_transaction": new_id_in(8), "programme": PROGRAMME, "partner": PARTNER,
        "occurred": now, "month": JANUARY, "day": date(2026, 1, 15), "today": date(2026, 1, 15), "points": 1, "message": None,
        "redemption": made(3, 71, 7), "hold": made(8, 71, 7), "most": 100, "through": date(2026, 4, 1), **given,
    }  # fmt: skip
    return statement, {name: everything[name] for name in statement.parameters}


WRITES: dict[str, Callable[[], tuple[Statement, dict[str, Any]]]] = {
    "earn": lambda: batch(ledger.post_earnings),
    "earn into new lots": lambda: batch(ledger.post_earnings, expiries=[date(2026, 9, 30)]),
    "earn carefully": lambda: batch(ledger.post_earnings, careful=True),
    "earn pending points": lambda: batch(ledger.post_earnings, maturities=[date(2026, 1, 29)]),
    "return": lambda: batch(ledger.post_returns),
    "redeem": lambda: batch(ledger.post_redemptions, points=[15] * SIZE),
    "hold": lambda: batch(ledger.post_holds, points=[15] * SIZE),
    "capture": lambda: batch(ledger.post_captures, points=[None] * SIZE),
    "release": lambda: one(ledger.post_release),
    "run out": lambda: one(ledger.post_run_out_holds),
    "reverse": lambda: one(ledger.post_reversal),
    "transfer": lambda: one(ledger.post_transfer, points=15),
    "mature": lambda: one(ledger.post_maturities),
    "expire": lambda: one(ledger.post_expiries),
    "announce": lambda: one(ledger.post_expiry_notices, by_day=APRIL),
}


def of_thousand(what: int) -> dict[str, Any]:
    ids = [made(what, n + 1, m) for n, m in zip(FIRST_OF_EACH, BATCH, strict=True)]
    return {"buckets": [bucket_of(id) for id in ids], "transactions": ids}


def of_ann(**given: Any) -> dict[str, Any]:
    return {"bucket": 7, "member": made(0, 7, 7), "programme": PROGRAMME, **given}


BEHIND_THE_WALL = {"as_partner": None, "as_member": made(0, 7, 7)}
LAST = {"before_at": datetime.now(UTC) + timedelta(days=1), "before_id": UUID(int=2**128 - 1), "most": 20}
READS: dict[str, tuple[Statement, dict[str, Any]]] = {
    "kept answers": (ledger.kept_answers, {"owners": [PARTNER] * SIZE, "keys": [str(made(2, n, n + 1)) for n in BATCH]}),
    "transactions by id": (ledger.transactions_by_id, of_thousand(3)),
    "what is sealed": (ledger.leaf_hashes, PURCHASES),
    "who loses what": (
        ledger.expiry_preview,
        {"programme": PROGRAMME, "through": APRIL, "after_day": JANUARY, "after_bucket": 0, "after_member": UUID(int=0), "most": 100},
    ),
    "memberships by external id": (
        members.memberships_by_external_id, {"partners": [PARTNER] * SIZE, "external_ids": [f"x{n}" for n in BATCH]},
    ),
    "memberships by card": (members.memberships_by_card, {"partners": [PARTNER] * SIZE, "cards": [f"c{n}" for n in BATCH]}),
    "memberships by id": (
        members.memberships_by_id,
        {"partners": [PARTNER] * SIZE, "buckets": [bucket_of(id) for id in MEMBERS], "memberships": MEMBERS},
    ),
    "memberships of a partner": (members.memberships_of_partner, {"partner": PARTNER, "after": made(0, 5_000, 0), "most": 100}),
    "purchases by receipt": (earning.purchases_by_receipt, {"partner": PARTNER, "receipts": [f"r{n}" for n in BATCH]}),
    "purchases by id": (earning.purchases_by_id, PURCHASES),
    "returned lines": (earning.returned_lines, {"bucket": 7, "purchase": made(2, 20_006, 7)}),
    "returns by id": (earning.returns_by_id, of_thousand(4)),
    "redemptions by id": (redeeming.redemptions_by_id, of_thousand(3)),
    "reversals by id": (redeeming.reversals_by_id, of_thousand(5)),
    "hold by id": (holding.hold_by_id, {"bucket": 7, "hold": made(8, 71, 7)}),
    "activity": (activity.activity, {**BEHIND_THE_WALL, "bucket": 7, "member": made(0, 7, 7), "partner": None, **LAST}),
    "wallets": (wallets.wallets_of_members, {**BEHIND_THE_WALL, "buckets": [7], "members": [made(0, 7, 7)]}),
    "wallet at a moment": (wallets.wallet_at, of_ann(at=datetime.now(UTC))),
    "history": (wallets.history, of_ann(**LAST)),
    "what runs out": (wallets.expiring, of_ann(before=APRIL)),
    "takes of a transaction": (wallets.takes, {"bucket": 7, "transaction": made(3, 71, 7)}),
    "credits of a lot": (wallets.credits_of_lot, {"bucket": 7, "lot": made(1, 72, 7)}),
    "takes of a lot": (wallets.takes_of_lot, {"bucket": 7, "lot": made(1, 71, 7)}),
    "batches from a cursor": (events.batches_from, {"xid": "1", "batch": UUID(int=0), "most": 100}),
}  # fmt: skip


@pytest.fixture(scope="module")
async def million(server: EmbeddedPostgres, template: str) -> str:
    """A database with a million entries."""
    dsn = await create_database(server, "million", template)
    connection = await asyncpg.connect(dsn)
    await connection.execute(Path(__file__).with_name("million.sql").read_text(), timeout=300)
    await connection.close()
    return dsn


@asynccontextmanager
async def explained(dsn: str, role: str, plan: str = "auto") -> AsyncIterator[tuple[Any, list[str]]]:
    """A connection in a role, and the plans that what it runs was really run by: EXPLAIN makes its own, which is never generic."""
    connection, plans = await asyncpg.connect(dsn), []
    connection.add_log_listener(lambda _, message: plans.append(message.message))
    await connection.execute("load 'auto_explain'")
    for name, value in (
        ("auto_explain.log_min_duration", "0"), ("auto_explain.log_analyze", "on"), ("auto_explain.log_buffers", "on"),
        ("auto_explain.log_timing", "off"), ("auto_explain.log_format", "json"), ("client_min_messages", "log"),
        ("plan_cache_mode", plan), ("role", role),
    ):  # fmt: skip
        await connection.execute(f"set {name} = {value}")
    yield connection, plans
    await connection.close()


async def pages_of(connection: Any, plans: list[str], statement: Statement, given: dict[str, Any]) -> tuple[int, list[Any]]:
    """How many pages a statement touches, those of the functions it calls included, and what it answers."""
    arguments = statement.arguments(given)
    for _ in range(2):  # the second time, when what a connection looks up once is not counted
        await connection.execute("begin")
        answer = await connection.fetch(statement.text, *arguments)
        await connection.execute("rollback")
    (last,) = [said for said in plans if said.startswith("duration: ")][-1:]
    plan = json.loads(last[last.index("{") :])["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], answer


@pytest.mark.parametrize("name", list(WRITES))
async def test_what_posts_touches_a_few_pages_an_item(million: str, name: str) -> None:
    statement, given = WRITES[name]()
    async with explained(million, POSTER_ROLE) as (connection, plans):
        pages, answer = await pages_of(connection, plans, statement, given)
    answers = answer[0].get("answers") or [answer[0].get("verdict", "post")]
    assert set(answers) == {"post"}
    assert answer[0][0] not in (None, 0)
    items = SIZE if len(given.get("keys", [])) == SIZE else given.get("most", 1)
    assert pages <= max(items * PAGES_AN_ITEM, PAGES_OF_MEMBER)


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", list(READS))
async def test_what_reads_touches_a_few_pages_a_row(million: str, name: str, plan: str) -> None:
    statement, given = READS[name]
    role = READER_ROLE if "as_member" in given else APPLICATION_ROLE
    async with explained(million, role, plan) as (connection, plans):
        pages, answer = await pages_of(connection, plans, statement, given)
    assert answer
    many = any(isinstance(value, list) and len(value) == SIZE for value in given.values())
    assert pages <= (SIZE * PAGES_A_ROW if many else PAGES_OF_MEMBER)


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_what_reads_all_of_a_member_takes_a_few_pages_a_transaction_where_tables_were_never_analyzed(world: World, plan: str) -> None:
    many = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { errors { code } } }"
    others = [{"externalId": f"other-{n}"} for n in range(SIZE)]
    await world.ask("grocer", "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { errors { code } } }", i=others)
    await world.ask("grocer", many, i=[world.purchase("1.00", member=each) for each in others])
    await world.ask("grocer", many, i=[world.purchase("1.00") for _ in range(SIZE)])
    for _ in range(50):
        await world.redeem(1)
    (ann,) = await world.sql("select bucket, member_id as member from card where number = 'CARD-1'")
    (programme,) = await world.sql("select programme_id as programme from programme where code = 'MER'")
    (lot,) = await world.sql("select bucket, lot_id as lot from lot where member_id = $1", ann["member"])
    for analyzed in ("", "analyze transaction"):  # as autovacuum does it, which leaves out tables with less than fifty rows
        await world.sql(analyzed or "select")
        async with explained(world.dsn, APPLICATION_ROLE, plan) as (connection, plans):
            for statement, given, rows in (
                (wallets.wallet_at, {**ann, **programme, "at": datetime.now(UTC)}, 1), (wallets.history, {**ann, **programme, **LAST}, 20),
                (wallets.credits_of_lot, dict(lot), SIZE), (wallets.takes_of_lot, dict(lot), 50),
            ):  # fmt: skip
                pages, answer = await pages_of(connection, plans, statement, given)
                assert len(answer) == rows
                assert pages <= SIZE * PAGES_A_ROW, (statement.text[:60], analyzed)
