"""Transfers in GraphQL: a member gives points to another."""

from enum import Enum
from uuid import UUID

import strawberry

from gateway.activity.graph import Activity, activity_fields, seen_by_caller
from gateway.context import Info
from gateway.database import Tx
from gateway.graph import PUBLIC, SEES_TRANSFERS, Payload, refusing, requires
from gateway.refusals import NotAllowed
from gateway.scalars import Points
from gateway.transfer import transfer


@strawberry.enum(description="Which half of a transfer it is.")
class TransferDirection(Enum):
    OUT = "out"
    IN = "in"


@strawberry.type(directives=[SEES_TRANSFERS], description="Points given to another member, or got from one.")
class Transfer(Activity):
    direction: TransferDirection
    message: str | None = strawberry.field(description="For the two members; null to operators, and to who acts for one.")


@strawberry.input(description="Points for another member.")
class TransferPointsInput:
    idempotency_key: str
    card: str = strawberry.field(description="A card of the member who gets them.")
    programme: str = strawberry.field(description="Its code, such as MER.")
    points: Points = strawberry.field(description="At least 1; all of them or none are given.")
    message: str | None = strawberry.field(default=None, description="For the other member, up to 140 characters.")


@strawberry.type(directives=[PUBLIC])
class TransferPointsPayload(Payload):
    transfer: Transfer | None = None


def show_transfer(info: Info, posted: transfer.Transfer) -> Transfer:
    return Transfer(
        **activity_fields(info, posted, posted.programme_id, posted.points if posted.direction == "in" else -posted.points),
        direction=TransferDirection(posted.direction),
        message=posted.message if info.context.caller.is_member_itself else None,
    )


@strawberry.type
class TransferMutation:
    @strawberry.mutation(
        directives=[requires("points:transfer")],
        description="Give points to another member; they keep their expiry day, and repay what that member owes first.",
    )
    @refusing(TransferPointsPayload)
    async def transfer_points(self, info: Info, input: TransferPointsInput) -> TransferPointsPayload:
        context, doors = info.context, info.context.doors
        request = transfer.TransferRequest(input.idempotency_key, input.card, input.programme, input.points, input.message)
        if context.caller.member_id is None:
            raise NotAllowed("Only a member gives points away.")
        posted = await transfer.transfer(
            doors.database, doors.ledger, context.coalition, context.caller.member_id, request, doors.clock.now(),
            context.caller.acting_partner_id,
        )  # fmt: skip
        return TransferPointsPayload(transfer=show_transfer(info, posted))


async def transfer_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Halves of transfers by transaction, those that the caller may see."""
    found = await transfer.transfers_by_id(tx, transactions)
    return seen_by_caller(info, found, show_transfer)
