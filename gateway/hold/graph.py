"""Holds in GraphQL: points set aside for a redemption to come."""

from enum import Enum
from uuid import UUID

import strawberry

from gateway.activity.graph import sees
from gateway.coalition.graph import Programme, show_programme
from gateway.context import Info
from gateway.graph import PUBLIC, Node, Payload, read_id, refusing, requires, show_id
from gateway.hold import hold as holds
from gateway.members.graph import MemberRef
from gateway.redemption.graph import Redemption, show_redemption
from gateway.scalars import OCCURRED_OR_NOW, DateTime, Points


@strawberry.enum(description="How far a hold has come.")
class HoldState(Enum):
    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


@strawberry.type(
    directives=[requires("points:burn", "balance:read", "members:support")],
    description="Points set aside for a redemption to come.",
)
class Hold(Node):
    id: strawberry.ID
    programme: Programme
    points: Points = strawberry.field(description="What was set aside in all.")
    captured: Points = strawberry.field(description="What was redeemed of it.")
    released: Points = strawberry.field(description="What went back to the member.")
    state: HoldState
    placed_at: DateTime
    expires_at: DateTime | None
    reference: str | None


def show_hold(info: Info, hold: holds.Hold) -> Hold:
    return Hold(
        id=show_id("hld", hold.id),
        programme=show_programme(info.context.coalition.programmes[hold.programme_id]),
        points=Points(hold.points),
        captured=Points(hold.captured),
        released=Points(hold.released),
        state=HoldState(hold.state),
        placed_at=DateTime(hold.placed_at),
        expires_at=DateTime(hold.expires_at) if hold.expires_at else None,
        reference=hold.reference,
    )


async def hold_node(info: Info, id: UUID) -> Hold | None:
    """A hold by id: the partner that placed it and operators see it, and who may read its member's activity."""
    async with info.context.reading() as tx:
        found = await holds.hold_by_id(tx, id)
    return show_hold(info, found) if found and sees(info, found.member_id, found.partner_id) else None


@strawberry.input(description="Points to set aside for a redemption to come.")
class HoldPointsInput:
    idempotency_key: str
    member: MemberRef
    programme: str = strawberry.field(description="Its code, such as MER.")
    points: Points = strawberry.field(description="At least 1; all of them or none are set aside.")
    reference: str | None = strawberry.field(default=None, description="The till's own reference, up to 128 characters.")
    expires_at: DateTime | None = strawberry.field(
        default=None, description="When what is left goes back; 15 minutes from now if not given, 30 days at most."
    )


@strawberry.input(description="Points to redeem out of a hold.")
class CaptureHoldInput:
    idempotency_key: str
    hold: strawberry.ID
    points: Points | None = strawberry.field(default=None, description="All that is left of it if not given.")
    reference: str | None = strawberry.field(default=None, description="Of this redemption; the hold's if not given.")
    occurred_at: DateTime | None = strawberry.field(default=None, description=OCCURRED_OR_NOW)


@strawberry.input(description="A hold to give back.")
class ReleaseHoldInput:
    idempotency_key: str
    hold: strawberry.ID


@strawberry.type(directives=[PUBLIC])
class HoldPointsPayload(Payload):
    hold: Hold | None = None


@strawberry.type(directives=[PUBLIC])
class CaptureHoldPayload(Payload):
    redemption: Redemption | None = None
    hold: Hold | None = None


@strawberry.type(directives=[PUBLIC])
class ReleaseHoldPayload(Payload):
    hold: Hold | None = None


@strawberry.type
class HoldMutation:
    @strawberry.mutation(
        directives=[requires("points:burn")],
        description="Set a member's points aside; they are honoured until the hold ends, even beyond their last day.",
    )
    @refusing(HoldPointsPayload)
    async def hold_points(self, info: Info, input: HoldPointsInput) -> HoldPointsPayload:
        context, doors = info.context, info.context.doors
        request = holds.HoldRequest(
            input.idempotency_key, input.member.read(), input.programme, input.points, input.reference, input.expires_at
        )
        placed = await holds.place(doors.database, doors.ledger, context.coalition, context.partner(), request, doors.clock.now())
        return HoldPointsPayload(hold=show_hold(info, placed))

    @strawberry.mutation(
        directives=[requires("points:burn")],
        description="Redeem some or all of a hold, several times until it is used up.",
    )
    @refusing(CaptureHoldPayload)
    async def capture_hold(self, info: Info, input: CaptureHoldInput) -> CaptureHoldPayload:
        context, doors = info.context, info.context.doors
        hold_id = read_id("hld", input.hold, "hold")
        request = holds.CaptureRequest(input.idempotency_key, hold_id, input.points, input.reference, input.occurred_at)
        redemption, hold = await holds.capture(
            doors.database, doors.ledger, context.coalition, context.partner(), request, doors.clock.now()
        )
        return CaptureHoldPayload(redemption=show_redemption(info, redemption), hold=show_hold(info, hold))

    @strawberry.mutation(
        directives=[requires("points:burn")], description="Give back what is left of a hold; what has run out meanwhile expires."
    )
    @refusing(ReleaseHoldPayload)
    async def release_hold(self, info: Info, input: ReleaseHoldInput) -> ReleaseHoldPayload:
        context, doors = info.context, info.context.doors
        hold_id = read_id("hld", input.hold, "hold")
        hold = await holds.release(
            doors.database,
            doors.ledger,
            context.coalition,
            context.partner(),
            input.idempotency_key,
            hold_id,
            doors.clock.now(),
        )
        return ReleaseHoldPayload(hold=show_hold(info, hold))
