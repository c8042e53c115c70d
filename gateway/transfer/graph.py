"""Transfers in GraphQL: a member gives points to another."""

from enum import Enum
from uuid import UUID

import strawberry

from gateway.coalition.graph import Programme, show_programme
from gateway.context import Info
from gateway.graph import PUBLIC, SEES_MEMBERSHIPS, DateTime, Points, Refusal, YearMonth, refusal, requires, show_id
from gateway.refusals import NotAllowed, Refused
from gateway.transfer import transfer
from gateway.wallets.graph import Activity, month_or_none, sees


@strawberry.enum(description="Which half of a transfer it is.")
class TransferDirection(Enum):
    OUT = "out"
    IN = "in"


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points given to another member, or got from one.")
class Transfer(Activity):
    id: strawberry.ID
    programme: Programme
    points: Points
    occurred_at: DateTime
    posted_at: DateTime
    period: YearMonth
    missed_period: YearMonth | None
    direction: TransferDirection
    message: str | None


@strawberry.input(description="Points for another member.")
class TransferPointsInput:
    idempotency_key: str
    card: str = strawberry.field(description="A card of the member who gets them.")
    programme: str = strawberry.field(description="Its code, such as MER.")
    points: Points = strawberry.field(description="At least 1; all of them or none are given.")
    message: str | None = strawberry.field(default=None, description="For the other member, up to 140 characters.")


@strawberry.type(directives=[PUBLIC])
class TransferPointsPayload:
    transfer: Transfer | None
    errors: list[Refusal]


def show_transfer(info: Info, posted: transfer.Transfer) -> Transfer:
    return Transfer(
        id=show_id("txn", posted.id),
        programme=show_programme(info.context.coalition.programmes[posted.programme_id]),
        points=Points(posted.points if posted.direction == "in" else -posted.points),
        occurred_at=DateTime(posted.occurred_at),
        posted_at=DateTime(posted.posted_at),
        period=YearMonth(posted.period),
        missed_period=month_or_none(posted.missed_period),
        direction=TransferDirection(posted.direction),
        message=posted.message,
    )


@strawberry.type
class TransferMutation:
    @strawberry.mutation(
        directives=[requires("points:transfer")],
        description="Give points to another member; they keep their expiry day, and repay what that member owes first.",
    )
    async def transfer_points(self, info: Info, input: TransferPointsInput) -> TransferPointsPayload:
        context, doors = info.context, info.context.doors
        request = transfer.TransferRequest(input.idempotency_key, input.card, input.programme, input.points, input.message)
        try:
            if context.caller.member_id is None:
                raise NotAllowed("Only a member gives points away.")
            posted = await transfer.transfer(
                doors.database, doors.ledger, context.coalition, context.caller.member_id, request, doors.clock.now()
            )
        except Refused as refused:
            return TransferPointsPayload(transfer=None, errors=[refusal(refused)])
        return TransferPointsPayload(transfer=show_transfer(info, posted), errors=[])


async def transfer_activity(info: Info, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Halves of transfers by transaction, those that the caller may see."""
    async with info.context.database.reading() as tx:
        found = await transfer.transfers_by_id(tx, transactions)
    return {id: show_transfer(info, posted) for id, posted in found.items() if sees(info, posted.member_id, None)}
