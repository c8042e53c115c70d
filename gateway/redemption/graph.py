"""Redemption in GraphQL: points spent at the calling partner, each traced to its funder."""

from uuid import UUID

import strawberry

from gateway import ids
from gateway.activity.graph import Activity, activity_fields, seen_by_caller
from gateway.coalition.graph import Partner, show_partner
from gateway.context import Info
from gateway.database import Tx
from gateway.graph import PUBLIC, SEES_MEMBERSHIPS, BadInput, Payload, read_id, refusal, refusing, requires, show_id
from gateway.members.graph import MemberRef
from gateway.redemption import redeem, reverse
from gateway.refusals import BatchTooLarge, Refused
from gateway.scalars import OCCURRED_OR_NOW, DateTime, Day, Points
from gateway.wallets import history


@strawberry.type(directives=[requires("members:support")], description="Points that one transaction had brought.")
class PointsOrigin:
    transaction: strawberry.ID
    kind: str = strawberry.field(description="earning, adjustment, or transfer: given on too often to be followed.")
    receipt: str | None = strawberry.field(description="Of the purchase.")
    partner: Partner | None
    occurred_at: DateTime
    points: Points


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points of a redemption that came from one funder's lot.")
class Take:
    points: Points
    expires_on: Day = strawberry.field(description="When they would have run out; 9999-12-31: never.")
    funder: Partner | None = strawberry.field(
        description="Who had funded them; a partner is told of its own alone, since the others say where else a member shops."
    )
    lot_id: strawberry.Private[UUID]
    transaction_id: strawberry.Private[UUID]

    @strawberry.field(
        directives=[requires("members:support")],
        description="The purchases that brought these points, also to another member who gave them, by the rule that the first "
        "to come are the first to go.",
    )
    async def origins(self, info: Info) -> list[PointsOrigin]:
        async with info.context.reading() as tx:
            found = await history.origins(tx, self.lot_id, self.transaction_id)
        partners = info.context.coalition.partners
        return [
            PointsOrigin(
                transaction=show_id("txn", origin.transaction_id),
                kind=origin.kind,
                receipt=origin.receipt,
                partner=show_partner(partners[origin.partner_id]) if origin.partner_id else None,
                occurred_at=DateTime(origin.occurred_at),
                points=Points(origin.points),
            )
            for origin in found
        ]


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points spent at a partner.")
class Redemption(Activity):
    reference: str | None = strawberry.field(description="The till's own reference.")
    reversed: Points = strawberry.field(description="How many of the points were given back since.")
    transaction_id: strawberry.Private[UUID]

    @strawberry.field(
        directives=[requires("points:burn", "members:support")], description="Where the points came from, first-expiring first."
    )
    async def takes(self, info: Info) -> list[Take]:
        async with info.context.reading() as tx:
            rows = await tx.all(history.sql.takes, bucket=ids.bucket_of(self.transaction_id), transaction=self.transaction_id)
        partners, caller = info.context.coalition.partners, info.context.caller
        everybodys = caller.kind == "operator"
        return [
            Take(
                points=row["points"],
                expires_on=Day(row["expires_on"]),
                funder=show_partner(partners[row["funder_id"]]) if everybodys or row["funder_id"] == caller.party else None,
                lot_id=row["lot_id"],
                transaction_id=self.transaction_id,
            )
            for row in rows
        ]


def show_redemption(info: Info, posted: redeem.Redemption) -> Redemption:
    return Redemption(
        **activity_fields(info, posted, posted.programme_id, -posted.points),
        reference=posted.reference,
        reversed=Points(posted.restored),
        transaction_id=posted.id,
    )


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points of a redemption that were given back.")
class RedemptionReversal(Activity):
    redemption: strawberry.ID = strawberry.field(description="Id of the redemption they were of.")


def show_reversal(info: Info, posted: reverse.Reversal) -> RedemptionReversal:
    return RedemptionReversal(
        **activity_fields(info, posted, posted.programme_id, posted.points),
        redemption=show_id("txn", posted.redemption_id),
    )


@strawberry.input(description="Points to spend at the calling partner.")
class RedeemPointsInput:
    idempotency_key: str
    member: MemberRef
    programme: str = strawberry.field(description="Its code, such as MER.")
    points: Points = strawberry.field(description="At least 1; all of them or none are spent.")
    reference: str | None = strawberry.field(default=None, description="The till's own reference, up to 128 characters.")
    occurred_at: DateTime | None = strawberry.field(
        default=None, description=f"{OCCURRED_OR_NOW} The points that are there now are spent, whatever the day."
    )

    def read(self) -> redeem.RedeemRequest:
        return redeem.RedeemRequest(
            idempotency_key=self.idempotency_key,
            member=self.member.read(),
            programme=self.programme,
            points=self.points,
            reference=self.reference,
            occurred_at=self.occurred_at,
        )


@strawberry.input(description="Points of a redemption to give back, since what they paid for was returned.")
class ReverseRedemptionInput:
    idempotency_key: str
    redemption: strawberry.ID
    points: Points | None = strawberry.field(default=None, description="All that is left of it if not given.")
    occurred_at: DateTime | None = strawberry.field(default=None, description=OCCURRED_OR_NOW)


@strawberry.type(directives=[PUBLIC])
class ReverseRedemptionPayload(Payload):
    reversal: RedemptionReversal | None = None


@strawberry.type(directives=[PUBLIC])
class RedeemPointsPayload(Payload):
    redemption: Redemption | None = None


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

    @strawberry.mutation(
        directives=[requires("points:burn")],
        description="Give points of a redemption back to the lots they came from; what has run out meanwhile expires.",
    )
    @refusing(ReverseRedemptionPayload)
    async def reverse_redemption(self, info: Info, input: ReverseRedemptionInput) -> ReverseRedemptionPayload:
        context, doors = info.context, info.context.doors
        redemption_id = read_id("txn", input.redemption, "redemption")
        request = reverse.ReverseRequest(input.idempotency_key, redemption_id, input.points, input.occurred_at)
        posted = await reverse.reverse(
            doors.database, doors.ledger, context.coalition, context.partner(), request, doors.clock.now()
        )
        return ReverseRedemptionPayload(reversal=show_reversal(info, posted))


async def _redeem(info: Info, input: list[RedeemPointsInput]) -> list[RedeemPointsPayload]:
    context = info.context
    doors = context.doors
    try:
        outcomes = await redeem.redeem(
            doors.database,
            doors.members,
            doors.ledger,
            context.coalition,
            context.partner(),
            [i.read() for i in input],
            doors.clock.now(),
        )
    except BatchTooLarge as refused:
        raise BadInput(f"input: {refused.message}") from None
    except Refused as refused:
        return [RedeemPointsPayload(errors=[refusal(refused)]) for _ in input]
    return [
        RedeemPointsPayload(errors=[refusal(outcome)])
        if isinstance(outcome, Refused)
        else RedeemPointsPayload(redemption=show_redemption(info, outcome))
        for outcome in outcomes
    ]


async def redemption_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Redemptions by transaction, those that the caller may see."""
    found = await redeem.redemptions_by_id(tx, transactions)
    return seen_by_caller(info, found, show_redemption)


async def reversal_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Reversals by transaction, those that the caller may see."""
    found = await reverse.reversals_by_id(tx, transactions)
    return seen_by_caller(info, found, show_reversal)
