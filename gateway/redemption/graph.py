"""Redemption in GraphQL: points spent at the calling partner, each traced to its funder."""

from uuid import UUID

import strawberry

from gateway import ids
from gateway.coalition.graph import Partner, Programme, show_partner, show_programme
from gateway.context import Info
from gateway.graph import (
    PUBLIC,
    SEES_MEMBERSHIPS,
    BadInput,
    DateTime,
    Day,
    Points,
    Refusal,
    YearMonth,
    refusal,
    requires,
    show_id,
)
from gateway.ledger.post import sql as ledger_sql
from gateway.members.graph import Activity, MemberRef, month_or_none, sees
from gateway.redemption import redeem
from gateway.refusals import BatchTooLarge, Refused


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points of a redemption that came from one funder's lot.")
class Take:
    points: Points
    expires_on: Day = strawberry.field(description="When they would have run out; 9999-12-31: never.")
    funder: Partner


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points spent at a partner.")
class Redemption(Activity):
    id: strawberry.ID
    programme: Programme
    points: Points
    occurred_at: DateTime
    posted_at: DateTime
    period: YearMonth
    missed_period: YearMonth | None
    reference: str | None = strawberry.field(description="The till's own reference.")
    transaction_id: strawberry.Private[UUID]

    @strawberry.field(
        directives=[requires("points:burn", "members:support")], description="Where the points came from, first-expiring first."
    )
    async def takes(self, info: Info) -> list[Take]:
        async with info.context.database.reading() as tx:
            rows = await tx.all(ledger_sql.takes, bucket=ids.bucket_of(self.transaction_id), transaction=self.transaction_id)
        partners = info.context.coalition.partners
        return [
            Take(points=r["points"], expires_on=Day(r["expires_on"]), funder=show_partner(partners[r["funder_id"]])) for r in rows
        ]


def show_redemption(programme: Programme, posted: redeem.Redemption) -> Redemption:
    return Redemption(
        id=show_id("txn", posted.id),
        programme=programme,
        points=Points(-posted.points),
        occurred_at=DateTime(posted.occurred_at),
        posted_at=DateTime(posted.posted_at),
        period=YearMonth(posted.period),
        missed_period=month_or_none(posted.missed_period),
        reference=posted.reference,
        transaction_id=posted.id,
    )


@strawberry.input(description="Points to spend at the calling partner.")
class RedeemPointsInput:
    idempotency_key: str
    member: MemberRef
    programme: str = strawberry.field(description="Its code, such as MER.")
    points: Points = strawberry.field(description="At least 1; all of them or none are spent.")
    reference: str | None = strawberry.field(default=None, description="The till's own reference, up to 128 characters.")
    occurred_at: DateTime | None = strawberry.field(default=None, description="When it happened; now if not given.")

    def read(self) -> redeem.RedeemRequest:
        return redeem.RedeemRequest(
            idempotency_key=self.idempotency_key,
            member=self.member.read(),
            programme=self.programme,
            points=self.points,
            reference=self.reference,
            occurred_at=self.occurred_at,
        )


@strawberry.type(directives=[PUBLIC])
class RedeemPointsPayload:
    redemption: Redemption | None
    errors: list[Refusal]


@strawberry.type
class RedemptionMutation:
    @strawberry.mutation(
        directives=[requires("points:burn")], description="Spend a member's points at the calling partner, first-expiring first."
    )
    async def redeem_points(self, info: Info, input: RedeemPointsInput) -> RedeemPointsPayload:
        return (await _redeem(info, [input]))[0]

    @strawberry.mutation(
        directives=[requires("points:burn")], description="Up to 1,000 redemptions, each with its own outcome, in order."
    )
    async def redeem_points_batch(self, info: Info, input: list[RedeemPointsInput]) -> list[RedeemPointsPayload]:
        return await _redeem(info, input)


async def _redeem(info: Info, input: list[RedeemPointsInput]) -> list[RedeemPointsPayload]:
    context = info.context
    doors = context.doors
    try:
        outcomes = await redeem.redeem(
            doors.database, doors.ledger, context.coalition, context.partner(), [i.read() for i in input], doors.clock.now()
        )
    except BatchTooLarge as refused:
        raise BadInput(f"input: {refused.message}") from None
    except Refused as refused:
        return [RedeemPointsPayload(redemption=None, errors=[refusal(refused)]) for _ in input]
    programmes = {id: show_programme(programme) for id, programme in context.coalition.programmes.items()}
    return [
        RedeemPointsPayload(redemption=None, errors=[refusal(outcome)])
        if isinstance(outcome, Refused)
        else RedeemPointsPayload(redemption=show_redemption(programmes[outcome.programme_id], outcome), errors=[])
        for outcome in outcomes
    ]


async def redemption_activity(info: Info, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Redemptions by transaction, those that the caller may see."""
    async with info.context.database.reading() as tx:
        found = await redeem.redemptions_by_id(tx, transactions)
    programmes = info.context.coalition.programmes
    return {
        id: show_redemption(show_programme(programmes[posted.programme_id]), posted)
        for id, posted in found.items()
        if sees(info, posted.member_id, posted.partner_id)
    }
