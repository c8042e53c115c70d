"""Correcting a member's points: with a reason, and above a limit with the approval of a second operator."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from gateway.access.scopes import of_roles
from gateway.coalition.catalogue import Coalition, Programme
from gateway.database import Database, LostRace, Tx
from gateway.ids import bucket_of, new_id_in
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.refused import refusal_of
from gateway.members.lookup import sql as members_sql
from gateway.points import MAX_POINTS
from gateway.refusals import (
    AdjustmentUnknown,
    IdempotencyKeyReused,
    InputNotAccepted,
    MemberUnknown,
    NotAllowed,
    StateConflict,
)
from gateway.replay import digest
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

REASON_MAX = 500
# Over so long the points that an operator adjusts alone count together, so that splitting them gains nothing.
ALONE_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class AdjustRequest:
    """Whole points to give (+) or take (-), on behalf of a partner, whose contract in force they are booked under."""

    idempotency_key: str
    member_id: UUID
    programme: str
    partner: str
    points: int
    reason: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """`state` is awaiting_approval, posted or rejected; the posting's times are None until it is posted."""

    id: UUID
    member_id: UUID
    programme_id: UUID
    partner_id: UUID
    points: int
    reason: str
    state: str
    requested_by: UUID
    requested_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
    occurred_at: datetime
    posted_at: datetime | None
    period: date | None
    missed_period: date | None


async def adjust(
    database: Database, coalition: Coalition, operator_id: UUID, limit: int, request: AdjustRequest, now: datetime
) -> Adjustment:
    """Ask for an adjustment; up to `limit` points it is posted at once, above it waits for a second operator.

    Raises MemberUnknown, ProgrammeUnknown, InputNotAccepted, InsufficientPoints (nobody goes below zero),
    IdempotencyKeyReused, PeriodNotOpen; DatabaseAway.
    """
    content = digest("adjustment", (request.member_id, request.programme, request.partner, request.points, request.reason))
    try:
        async with database.transaction() as tx:
            adjustment_id = await _find_or_store(tx, coalition, operator_id, limit, request, content, now)
    except LostRace:
        # The same key was stored by another request in this very moment, and is found now.
        async with database.transaction() as tx:
            adjustment_id = await _find_or_store(tx, coalition, operator_id, limit, request, content, now)
    async with database.reading() as tx:
        kept = await tx.one(sql.adjustment_by_key, owner=operator_id, key=request.idempotency_key)
    if kept is not None and kept["refusal"] is not None:
        raise refusal_of(kept["refusal"], points=abs(kept["points"]))
    return await _read(database, adjustment_id)


async def decide(
    database: Database, coalition: Coalition, operator_id: UUID, adjustment_id: UUID, approve: bool, now: datetime
) -> Adjustment:
    """Approve or reject an adjustment that waits. Deciding the same again gives the same answer.

    Raises AdjustmentUnknown, NotAllowed for the operator who asked for it, and to approve what one asked for who may not by now,
    StateConflict when it was decided otherwise, InsufficientPoints, PeriodNotOpen; DatabaseAway.
    """
    wanted = "posted" if approve else "rejected"
    async with database.transaction() as tx:
        row = await tx.one(sql.adjustment_for_update, bucket=bucket_of(adjustment_id), id=adjustment_id)
        if row is None:
            raise AdjustmentUnknown
        if row["requested_by"] == operator_id:
            raise NotAllowed("A second operator decides; this adjustment is your own.")
        if row["state"] == "awaiting_approval":
            partner = coalition.partners[row["partner_id"]]
            if approve and partner.status != "active":
                raise NotAllowed(f"{partner.name} is suspended.")
            roles = await tx.value(sql.roles_of_operator, operator=row["requested_by"])
            if approve and "ledger:adjust" not in of_roles(roles or ()):
                raise NotAllowed("Who asked for this adjustment may not ask for any by now; reject it.")
            programme = coalition.programmes[row["programme_id"]]
            verdict = await _conclude(tx, coalition, adjustment_id, programme, wanted, operator_id, row["occurred_at"], now)
            if verdict != "post":
                # Leaving the transaction by an exception undoes the decision too.
                points = abs((await adjustments_by_id(tx, [adjustment_id]))[adjustment_id].points)
                raise refusal_of(verdict, points=points, month=coalition.day_of(row["occurred_at"]).replace(day=1))
        elif row["state"] != wanted:
            raise StateConflict(f"The adjustment was {row['state']} before.")
    return await _read(database, adjustment_id)


async def _find_or_store(
    tx: Tx, coalition: Coalition, operator_id: UUID, limit: int, request: AdjustRequest, content: bytes, now: datetime
) -> UUID:
    check_text(request.idempotency_key, "idempotencyKey", 200)
    known = await tx.one(sql.adjustment_by_key, owner=operator_id, key=request.idempotency_key)
    if known is not None:
        if known["digest"] != content:
            raise IdempotencyKeyReused(request.idempotency_key)
        found: UUID = known["adjustment_id"]
        return found
    programme, partner_id, contract_id = _on_behalf_of(coalition, request, now)
    bucket = bucket_of(request.member_id)
    if await tx.one(members_sql.member_by_id, bucket=bucket, member=request.member_id) is None:
        raise MemberUnknown("that id")
    await tx.run(sql.lock_operator, operator=operator_id)
    direction = 1 if request.points > 0 else -1
    alone = await tx.value(sql.adjusted_alone, operator=operator_id, direction=direction, since=now - ALONE_FOR)
    adjustment_id, day = new_id_in(bucket), coalition.day_of(now)
    await tx.run(
        sql.store_adjustment,
        bucket=bucket,
        id=adjustment_id,
        owner=operator_id,
        key=request.idempotency_key,
        digest=content,
        member=request.member_id,
        programme=programme.id,
        partner=partner_id,
        contract=contract_id,
        points=request.points,
        reason=request.reason,
        requested_by=operator_id,
        at=now,
        occurred_at=now,
        day=day,
        expires_on=programme.expires_on(day),
    )
    if abs(request.points) + alone <= limit:
        verdict = await _conclude(tx, coalition, adjustment_id, programme, "posted", None, now, now)
        if verdict == "PERIOD_NOT_OPEN":
            raise refusal_of(verdict, month=day.replace(day=1))  # no answer for ever: the month may be opened
        if verdict != "post":
            await tx.run(sql.refuse_adjustment, bucket=bucket, id=adjustment_id, refusal=verdict)
    return adjustment_id


def _on_behalf_of(coalition: Coalition, request: AdjustRequest, now: datetime) -> tuple[Programme, UUID, UUID]:
    """The programme, and the partner and contract that an adjustment is booked under."""
    check_text(request.reason, "reason", REASON_MAX)
    if request.points == 0 or abs(request.points) > MAX_POINTS:
        raise InputNotAccepted(f"points is {request.points}; give some with +, take some with -.", "points")
    programme = coalition.programme_by_code(request.programme)
    if programme.custody != "ledger":
        raise NotAllowed(f"{programme.code} is kept by its own partner and is not adjusted here.").at("programme")
    partner = next((p for p in coalition.partners.values() if p.code == request.partner), None)
    if partner is None:
        raise InputNotAccepted(f"There is no partner {request.partner!r}.", "partner")
    if partner.status != "active":
        raise NotAllowed(f"{partner.name} is suspended.").at("partner")
    contract = coalition.contract_of(partner.id, coalition.settlement_currency, coalition.day_of(now))
    if contract is None:
        raise InputNotAccepted(f"{partner.name} has no contract in force.", "partner")
    return programme, partner.id, contract.id


async def _conclude(
    tx: Tx, coalition: Coalition, adjustment_id: UUID, programme: Programme, state: str, decided_by: UUID | None,
    occurred_at: datetime, now: datetime,
) -> str:  # fmt: skip
    """Decide, and post what was decided for; answers what the ledger said."""
    bucket, day = bucket_of(adjustment_id), coalition.day_of(now)
    await tx.run(
        sql.decide_adjustment,
        bucket=bucket,
        id=adjustment_id,
        state=state,
        decided_by=decided_by,
        at=now,
        day=day,
        expires_on=programme.expires_on(day),
    )
    if state != "posted":
        return "post"
    month = coalition.day_of(occurred_at).replace(day=1)
    (verdict,) = await tx.post(ledger_sql.post_adjustment, at=now, bucket=bucket, adjustment=adjustment_id, month=month)
    return str(verdict)


async def _read(database: Database, adjustment_id: UUID) -> Adjustment:
    async with database.reading() as tx:
        return (await adjustments_by_id(tx, [adjustment_id]))[adjustment_id]


async def adjustments_by_id(tx: Tx, ids: list[UUID]) -> dict[UUID, Adjustment]:
    """Adjustments by their ids; unknown ones are left out."""
    rows = await tx.all(sql.adjustments_by_id, buckets=[bucket_of(id) for id in ids], ids=ids)
    return {row["id"]: Adjustment(**row) for row in rows}
