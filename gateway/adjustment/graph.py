"""Adjustments in GraphQL: asked for by one operator, and above the limit decided by another."""

from datetime import UTC, datetime
from enum import Enum
from uuid import UUID

import strawberry

from gateway.activity.graph import Activity, month_or_none, sees
from gateway.adjustment import adjust
from gateway.coalition.graph import Partner, Programme, show_partner, show_programme
from gateway.context import Info
from gateway.database import Tx
from gateway.graph import PUBLIC, SEES_MEMBERSHIPS, STEP_UP, Node, Payload, read_id, refusing, requires, show_id
from gateway.pages import Connection, connection, moment_cursor, page, read_moment_cursor
from gateway.refusals import NotAllowed
from gateway.scalars import DateTime, Points, YearMonth

OPERATORS = requires("ledger:adjust", "ledger:approve")


@strawberry.enum(description="How far an adjustment has come.")
class AdjustmentState(Enum):
    AWAITING_APPROVAL = "awaiting_approval"
    POSTED = "posted"
    REJECTED = "rejected"


@strawberry.type(directives=[OPERATORS], description="A correction that an operator asked for.")
class AdjustmentRequest(Node):
    id: strawberry.ID
    member: strawberry.ID
    programme: Programme
    partner: Partner = strawberry.field(description="On whose behalf.")
    points: Points
    reason: str
    state: AdjustmentState
    requested_at: DateTime
    decided_at: DateTime | None
    transaction: strawberry.ID | None = strawberry.field(description="Null until it is posted.")


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points that an operator gave or took.")
class Adjustment(Activity):
    reason: str | None = strawberry.field(description="Null for partners.")


@strawberry.input(description="A correction of a member's points.")
class AdjustPointsInput:
    idempotency_key: str
    member: strawberry.ID
    programme: str = strawberry.field(description="Its code, such as MER.")
    partner: str = strawberry.field(description="Code of the partner on whose behalf; its contract in force applies.")
    points: Points = strawberry.field(description="+ gives, - takes; taking more than is available is refused.")
    reason: str = strawberry.field(description="Up to 500 characters; the member sees it.")


@strawberry.input(description="What a second operator decides.")
class DecideAdjustmentInput:
    adjustment: strawberry.ID


@strawberry.type(directives=[PUBLIC])
class AdjustPointsPayload(Payload):
    adjustment: AdjustmentRequest | None = None


def show_request(info: Info, found: adjust.Adjustment) -> AdjustmentRequest:
    coalition = info.context.coalition
    return AdjustmentRequest(
        id=show_id("adj", found.id),
        member=show_id("mem", found.member_id),
        programme=show_programme(coalition.programmes[found.programme_id]),
        partner=show_partner(coalition.partners[found.partner_id]),
        points=Points(found.points),
        reason=found.reason,
        state=AdjustmentState(found.state),
        requested_at=DateTime(found.requested_at),
        decided_at=DateTime(found.decided_at) if found.decided_at else None,
        transaction=show_id("txn", found.id) if found.posted_at else None,
    )


async def adjustment_node(info: Info, id: UUID) -> AdjustmentRequest | None:
    """What an operator asked for, by id: operators see it."""
    async with info.context.reading() as tx:
        found = (await adjust.adjustments_by_id(tx, [id])).get(id)
    return show_request(info, found) if found is not None else None


@strawberry.type
class AdjustmentQuery:
    @strawberry.field(directives=[OPERATORS], description="Adjustments that wait for a second operator, the oldest first.")
    async def adjustments_awaiting(self, info: Info, first: int, after: str | None = None) -> Connection[AdjustmentRequest]:
        asked = page(first, after)
        after_at, after_id = read_moment_cursor(after) if after else (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
        async with info.context.reading() as tx:
            rows = await tx.all(adjust.sql.adjustments_awaiting, after_at=after_at, after_id=after_id, most=first + 1)
            found = await adjust.adjustments_by_id(tx, [row["adjustment_id"] for row in rows])
        shown = [show_request(info, found[row["adjustment_id"]]) for row in rows]
        return connection(shown, lambda n: moment_cursor(rows[n]["requested_at"], rows[n]["adjustment_id"]), asked)


@strawberry.type
class AdjustmentMutation:
    @strawberry.mutation(
        directives=[requires("ledger:adjust"), STEP_UP],
        description="Correct a member's points; above the limit it waits until another operator has approved it.",
    )
    @refusing(AdjustPointsPayload)
    async def adjust_points(self, info: Info, input: AdjustPointsInput) -> AdjustPointsPayload:
        context, doors = info.context, info.context.doors
        request = adjust.AdjustRequest(
            idempotency_key=input.idempotency_key,
            member_id=read_id("mem", input.member, "member"),
            programme=input.programme,
            partner=input.partner,
            points=input.points,
            reason=input.reason,
        )
        found = await adjust.adjust(
            doors.database, context.coalition, _operator(info), doors.adjustment_limit, request, doors.clock.now()
        )
        return AdjustPointsPayload(adjustment=show_request(info, found))

    @strawberry.mutation(
        directives=[requires("ledger:approve"), STEP_UP], description="Approve another operator's adjustment: it is posted."
    )
    @refusing(AdjustPointsPayload)
    async def approve_adjustment(self, info: Info, input: DecideAdjustmentInput) -> AdjustPointsPayload:
        return await _decide(info, input, approve=True)

    @strawberry.mutation(directives=[requires("ledger:approve"), STEP_UP], description="Reject another operator's adjustment.")
    @refusing(AdjustPointsPayload)
    async def reject_adjustment(self, info: Info, input: DecideAdjustmentInput) -> AdjustPointsPayload:
        return await _decide(info, input, approve=False)


async def _decide(info: Info, input: DecideAdjustmentInput, approve: bool) -> AdjustPointsPayload:
    context, doors = info.context, info.context.doors
    adjustment_id = read_id("adj", input.adjustment, "adjustment")
    found = await adjust.decide(doors.database, context.coalition, _operator(info), adjustment_id, approve, doors.clock.now())
    return AdjustPointsPayload(adjustment=show_request(info, found))


def _operator(info: Info) -> UUID:
    """The operator's own account. Raises NotAllowed for anybody else."""
    caller = info.context.caller
    if caller.kind != "operator" or caller.subject_id is None:
        raise NotAllowed("Only an operator does this.")
    return caller.subject_id


async def adjustment_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Posted adjustments by transaction, those that the caller may see."""
    found = await adjust.adjustments_by_id(tx, transactions)
    programmes = info.context.coalition.programmes
    told_why = info.context.caller.acting_partner_id is None  # no partner is, in nobody's name
    return {
        id: Adjustment(
            id=show_id("txn", id),
            programme=show_programme(programmes[posted.programme_id]),
            points=Points(posted.points),
            occurred_at=DateTime(posted.occurred_at),
            posted_at=DateTime(posted.posted_at),
            period=YearMonth(posted.period),
            missed_period=month_or_none(posted.missed_period),
            reason=posted.reason if told_why and sees(info, posted.member_id, None) else None,
        )
        for id, posted in found.items()
        if posted.posted_at and posted.period and sees(info, posted.member_id, posted.partner_id)
    }
