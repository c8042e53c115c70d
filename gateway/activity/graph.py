"""Activity in GraphQL: what is common to every transaction that moved a member's points, and pages of it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import strawberry

from gateway import ids
from gateway.clock import LATEST
from gateway.coalition.graph import Programme, show_programme
from gateway.context import Info
from gateway.database import Row, Tx
from gateway.graph import SEES_MEMBERSHIPS, Node, show_id
from gateway.ids import LAST_ID
from gateway.ledger.graph import LedgerProof, proof_of
from gateway.ledger.transactions import Transaction, transactions_by_id
from gateway.pages import Connection, moment_cursor, page, read_moment_cursor
from gateway.scalars import DateTime, Points, YearMonth
from gateway.statements import load_queries

sql = load_queries(__file__)


@strawberry.federation.interface(directives=[SEES_MEMBERSHIPS], description="A transaction that moved a member's points.")
class Activity(Node):
    id: strawberry.ID
    programme: Programme
    points: Points = strawberry.field(description="What it did to the wallet: + came in, - went out.")
    occurred_at: DateTime = strawberry.field(description="The world's time.")
    posted_at: DateTime = strawberry.field(description="The ledger's time.")
    period: YearMonth = strawberry.field(description="The settlement month it counts in.")
    missed_period: YearMonth | None = strawberry.field(description="The month it happened in, if that was closed already.")

    @strawberry.field(description="That it is in the sealed ledger; null until it is, which takes some seconds.")
    async def proof(self, info: Info) -> LedgerProof | None:
        transaction_id = ids.read("txn", self.id)
        return await proof_of(info, transaction_id) if transaction_id else None


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points of lots whose last day had come.")
class Expiration(Activity):
    pass


async def activity_of(
    info: Info, member_id: UUID, partner_id: UUID | None, first: int, after: str | None
) -> Connection[Activity]:
    """A page of what moved a member's points, the latest first; what happened at one partner where one is named."""
    asked = page(first, after)
    before_at, before_id = read_moment_cursor(after) if after else (LATEST, LAST_ID)
    rows = await info.context.read(
        sql.activity,
        bucket=ids.bucket_of(member_id),
        member=member_id,
        partner=partner_id,
        before_at=before_at,
        before_id=before_id,
        most=first + 1,
    )
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    doors = info.context.doors
    shown: dict[UUID, Activity] = {}
    for kind in by_kind.keys() & doors.activity_of_rows.keys():
        shown.update(doors.activity_of_rows[kind](info, by_kind.pop(kind)))
    if by_kind:
        async with info.context.reading() as tx:
            for kind, of_kind in by_kind.items():
                shown.update(await doors.activity[kind](info, tx, [row["transaction_id"] for row in of_kind]))

    told = [row for row in rows[:first] if row["transaction_id"] in shown]
    return Connection(
        nodes=[shown[row["transaction_id"]] for row in told],
        cursor_of=lambda n: moment_cursor(told[n]["occurred_at"], told[n]["transaction_id"]),
        page_info_of=(len(rows) > first, asked.after is not None),
    )


def is_party(info: Info, member_id: UUID, partner_id: UUID | None) -> bool:
    """Whether something is the caller's: the member's, the partner's that it happened at, or an operator asks."""
    caller = info.context.caller
    at_own = partner_id is not None and partner_id == caller.partner_id
    return caller.kind == "operator" or member_id == caller.member_id or at_own


def sees(info: Info, member_id: UUID, partner_id: UUID | None) -> bool:
    """Whether the caller may see a transaction: its parties may, and in a member's name only who may read its activity, or the
    partner that acts for it and did this itself."""
    caller = info.context.caller
    reads = caller.kind != "member" or "profile:read" in caller.scopes
    did_it = caller.acting_partner_id is not None and caller.acting_partner_id == partner_id
    return is_party(info, member_id, partner_id) and (reads or did_it)


def month_or_none(month: date | None) -> YearMonth | None:
    return YearMonth(month) if month else None


class Posted(Protocol):
    """What every posted transaction of a slice tells."""

    @property
    def id(self) -> UUID: ...
    @property
    def member_id(self) -> UUID: ...
    @property
    def partner_id(self) -> UUID | None: ...
    @property
    def occurred_at(self) -> datetime: ...
    @property
    def posted_at(self) -> datetime: ...
    @property
    def period(self) -> date: ...
    @property
    def missed_period(self) -> date | None: ...


def activity_fields(info: Info, posted: Posted, programme_id: UUID, points: int) -> dict[str, Any]:
    """The fields that every Activity has; `points` with the sign that they have for the wallet."""
    return {
        "id": show_id("txn", posted.id),
        "programme": show_programme(info.context.coalition.programmes[programme_id]),
        "points": Points(points),
        "occurred_at": DateTime(posted.occurred_at),
        "posted_at": DateTime(posted.posted_at),
        "period": YearMonth(posted.period),
        "missed_period": month_or_none(posted.missed_period),
    }


AnyPosted = TypeVar("AnyPosted", bound=Posted)


def seen_by_caller(
    info: Info, found: Mapping[UUID, AnyPosted], show: Callable[[Info, AnyPosted], Activity]
) -> dict[UUID, Activity]:
    """Those transactions that the caller may see, as activity by their ids."""
    return {id: show(info, posted) for id, posted in found.items() if sees(info, posted.member_id, posted.partner_id)}


async def expiry_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Expirations by transaction, those that the caller may see."""
    return seen_by_caller(info, await transactions_by_id(tx, transactions), _show_expiration)


def _show_expiration(info: Info, posted: Transaction) -> Expiration:
    assert posted.programme_id is not None
    return Expiration(**activity_fields(info, posted, posted.programme_id, posted.points))
