"""Giving points to another member: the lots move with their expiry day, funder and contract."""

from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from uuid import UUID

from gateway.coalition.catalogue import Coalition
from gateway.database import Database, Tx
from gateway.ids import bucket_of, new_id_in
from gateway.ledger.items import Key
from gateway.ledger.post import Ledger
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.refused import post_once, refusal_of
from gateway.members.lookup import check_acting, check_active
from gateway.members.lookup import sql as members_sql
from gateway.points import MAX_POINTS
from gateway.refusals import CardBlocked, InputNotAccepted, NotAllowed, RecipientUnknown
from gateway.replay import digest
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

MESSAGE_MAX = 140


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """Whole points for the holder of a card."""

    idempotency_key: str
    card: str
    programme: str
    points: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One member's half of a transfer, which happens at no partner; `direction` is out or in."""

    id: UUID
    direction: str
    other_transaction_id: UUID
    member_id: UUID
    programme_id: UUID
    points: int
    message: str | None
    occurred_at: datetime
    posted_at: datetime
    period: date
    missed_period: date | None
    partner_id: None = None


async def transfer(
    database: Database, ledger: Ledger, coalition: Coalition, member_id: UUID, request: TransferRequest, now: datetime,
    acting: UUID | None = None,
) -> Transfer:  # fmt: skip
    """Move points of the calling member to the holder of a card, all of them or none. `acting`: the partner that asks for it in
    the member's name.

    What the other member owes is repaid from them first.
    Raises RecipientUnknown, CardBlocked, MembershipSuspended, NotAllowed, InsufficientPoints, TransactionLimitExceeded,
    DailyLimitReached, NotTransferable, ProgrammeUnknown, InputNotAccepted, IdempotencyKeyReused, PeriodNotOpen; DatabaseAway.
    """
    content = digest("transfer", (request.card, request.programme, request.points, request.message))
    key = Key(member_id, request.idempotency_key, content)
    post = partial(_post, database, coalition, member_id, request, key, now, acting)
    transaction_id = await post_once(ledger, key, request.points, post)
    async with database.reading() as tx:
        return (await transfers_by_id(tx, [transaction_id]))[transaction_id]


async def _post(
    database: Database, coalition: Coalition, member_id: UUID, request: TransferRequest, key: Key, now: datetime,
    acting: UUID | None,
) -> UUID:  # fmt: skip
    check_text(request.idempotency_key, "idempotencyKey", 200)
    check_text(request.card, "card", 64)
    if request.message is not None:
        check_text(request.message, "message", MESSAGE_MAX)
    if not 0 < request.points <= MAX_POINTS:
        raise InputNotAccepted(f"points is {request.points}; it must be at least 1.", "points")
    programme = coalition.programme_by_code(request.programme)
    if programme.custody != "ledger":
        raise NotAllowed(f"{programme.code} is kept by its own partner and is not transferred here.").at("programme")
    day = coalition.day_of(now)
    async with database.reading() as tx:
        await check_acting(tx, member_id, acting)
        other_id = await _holder(tx, request.card)
        if other_id == member_id:
            raise NotAllowed("Points go to another member, not to oneself.")
        for each in (member_id, other_id):
            await check_active(tx, each)
    row = await database.post(
        ledger_sql.post_transfer,
        at=now,
        owner=key.owner_id,
        key=key.text,
        digest=key.digest,
        programme=programme.id,
        member=member_id,
        transaction=new_id_in(bucket_of(member_id)),
        other=other_id,
        other_transaction=new_id_in(bucket_of(other_id)),
        occurred=now,
        month=day.replace(day=1),
        day=day,
        points=request.points,
        message=request.message,
    )
    if row["verdict"] not in ("post", "replay"):
        raise refusal_of(row["verdict"], key=key.text, points=request.points, month=day.replace(day=1))
    posted: UUID = row["posted"]
    return posted


async def _holder(tx: Tx, card: str) -> UUID:
    """The member who holds a card. Raises RecipientUnknown, CardBlocked."""
    rows = await tx.all(members_sql.cards_by_number, numbers=[card])
    if not rows:
        raise RecipientUnknown(card)
    if rows[0]["status"] == "blocked":
        raise CardBlocked(card)
    found: UUID = rows[0]["member_id"]
    return found


async def transfers_by_id(tx: Tx, transactions: list[UUID]) -> dict[UUID, Transfer]:
    """Halves of transfers by their ids."""
    rows = await tx.all(sql.transfers_by_id, buckets=[bucket_of(id) for id in transactions], transactions=transactions)
    return {row["id"]: Transfer(**row) for row in rows}
