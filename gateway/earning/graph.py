"""Earning in GraphQL: purchases, returns, and the trace of the rules behind the points."""

from decimal import Decimal as PyDecimal
from uuid import UUID

import strawberry

from gateway.activity.graph import Activity, activity_fields, seen_by_caller
from gateway.coalition.graph import Programme, show_programme
from gateway.context import Info
from gateway.database import Row, Tx
from gateway.earning import purchases, record, returns
from gateway.earning.rules import EarningStep as Step
from gateway.earning.rules import apply_rules
from gateway.graph import (
    PUBLIC,
    SEES_MEMBERSHIPS,
    BadInput,
    Money,
    MoneyInput,
    Node,
    Payload,
    money,
    refusal,
    refusing,
    requires,
    show_id,
)
from gateway.members.graph import MemberRef
from gateway.points import Money as Amount
from gateway.refusals import BatchTooLarge, Refused
from gateway.scalars import OCCURRED, DateTime, Day, Decimal, Points


@strawberry.type(directives=[PUBLIC], description="One rule's share of an earning.")
class EarningStep:
    rule: str
    version: int = strawberry.field(description="Of the contract or rule.")
    condition: str = strawberry.field(description="What had to hold.")
    amount: Decimal = strawberry.field(description="What it was reckoned on.")
    multiplier: str = strawberry.field(description="Points per 1.00, as a whole number or a fraction.")
    rounding: str = strawberry.field(description="How fractions of a point were rounded.")
    points: Points
    funder: str = strawberry.field(description="Code of the partner that pays for these points.")


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="What a till posted.")
class Purchase(Node):
    id: strawberry.ID
    receipt: str = strawberry.field(description="The till's own number.")
    total: Money
    returned: Money = strawberry.field(description="What has come back of it so far.")
    occurred_at: DateTime


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="The points a purchase brought, and why.")
class Earning(Activity):
    recorded: strawberry.Private[purchases.Purchase]

    @strawberry.field
    def purchase(self) -> Purchase:
        return show_purchase(self.recorded)

    @strawberry.field(description="The rules that gave these points, step by step.")
    def explanation(self, info: Info) -> list[EarningStep]:
        return [show_step(step) for step in purchases.explain(info.context.coalition, self.recorded)]

    @strawberry.field(description="From this day on they can be spent; null: at once.")
    def available_on(self) -> Day | None:
        return Day(self.recorded.matures_on) if self.recorded.matures_on else None


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="Points taken back for what was returned.")
class PurchaseReturn(Activity):
    total: Money
    owed: Points = strawberry.field(description="How many of the points were not there any more and are owed.")


@strawberry.type(directives=[PUBLIC], description="What a purchase would bring; nothing was posted.")
class SimulatedEarning:
    programme: Programme
    points: Points
    explanation: list[EarningStep]


def show_step(step: Step) -> EarningStep:
    return EarningStep(
        rule=step.rule,
        version=step.version,
        condition=step.condition,
        amount=step.amount,  # type: ignore[arg-type]
        multiplier=step.multiplier,
        rounding=step.rounding,
        points=Points(step.points),
        funder=step.funder,
    )


def show_earning(info: Info, purchase: purchases.Purchase) -> Earning:
    return Earning(
        **activity_fields(info, purchase, purchase.programme_id, purchase.points),
        recorded=purchase,
    )


def show_purchase(purchase: purchases.Purchase) -> Purchase:
    return Purchase(
        id=show_id("pur", purchase.id),
        receipt=purchase.receipt,
        total=money(purchase.total),
        returned=money(Amount(purchase.returned_minor, purchase.total.currency)),
        occurred_at=DateTime(purchase.occurred_at),
    )


def show_return(info: Info, posted: returns.PurchaseReturn) -> PurchaseReturn:
    return PurchaseReturn(
        **activity_fields(info, posted, posted.programme_id, -posted.points),
        total=money(posted.total),
        owed=Points(posted.owed),
    )


@strawberry.input(description="A line of a receipt.")
class PurchaseLineInput:
    amount: Decimal = strawberry.field(description="What the line cost in all.")
    sku: str | None = None
    category: str | None = None
    quantity: Decimal = Decimal(PyDecimal(1))


@strawberry.input(description="A purchase as a till posts it.")
class PurchaseInput:
    idempotency_key: str = strawberry.field(
        description="Unique per partner; the same key and content gets the first answer again."
    )
    member: MemberRef
    receipt: str = strawberry.field(description="The till's own number; a return names it. Unique per partner.")
    occurred_at: DateTime = strawberry.field(description=OCCURRED)
    total: MoneyInput
    store: str | None = strawberry.field(default=None, description="Code of the store.")
    lines: list[PurchaseLineInput] = strawberry.field(
        default_factory=list, description="What was bought. Points follow the total, to which lines need not add up."
    )

    def read(self) -> record.PurchaseRequest:
        return record.PurchaseRequest(
            idempotency_key=self.idempotency_key,
            member=self.member.read(),
            receipt=self.receipt,
            store=self.store,
            occurred_at=self.occurred_at,
            amount=self.total.amount,
            currency=self.total.currency,
            lines=read_lines(self.lines),
        )


@strawberry.input(description="What comes back of a purchase; neither total nor lines: all that is left.")
class ReturnInput:
    idempotency_key: str
    receipt: str = strawberry.field(description="The receipt of the purchase.")
    occurred_at: DateTime = strawberry.field(description=OCCURRED)
    total: MoneyInput | None = strawberry.field(default=None, description="How much comes back.")
    lines: list[PurchaseLineInput] = strawberry.field(default_factory=list, description="Which lines come back.")

    def read(self) -> returns.ReturnRequest:
        return returns.ReturnRequest(
            idempotency_key=self.idempotency_key,
            receipt=self.receipt,
            occurred_at=self.occurred_at,
            total=(self.total.amount, self.total.currency) if self.total else None,
            lines=read_lines(self.lines),
        )


def read_lines(lines: list[PurchaseLineInput]) -> tuple[tuple[str | None, str | None, Decimal, Decimal], ...]:
    return tuple((line.sku, line.category, line.quantity, line.amount) for line in lines)


@strawberry.type(directives=[PUBLIC])
class RecordPurchasePayload(Payload):
    recorded: strawberry.Private[purchases.Purchase | None] = None

    @strawberry.field
    def earning(self, info: Info) -> Earning | None:
        return show_earning(info, self.recorded) if self.recorded else None


@strawberry.type(directives=[PUBLIC])
class ReturnPurchasePayload(Payload):
    purchase_return: PurchaseReturn | None = None


@strawberry.type
class EarningQuery:
    @strawberry.field(directives=[requires("points:earn")], description="What a purchase would bring now; nothing is posted.")
    async def simulate_purchase(self, info: Info, input: PurchaseInput) -> SimulatedEarning:
        context = info.context
        try:
            request, partner = input.read(), context.partner()
            async with context.reading() as tx:
                item = await record.simulate_purchase(tx, context.coalition, partner, request, context.doors.clock.now())
        except Refused as refused:
            raise BadInput(refused.message, refused) from None
        contract = context.coalition.contracts_by_id[item.terms.contract_id]
        return SimulatedEarning(
            programme=show_programme(context.coalition.programmes[item.terms.programme_id]),
            points=Points(item.points),
            explanation=[show_step(step) for step in apply_rules(contract, partner.code, item.amount_minor)],
        )


@strawberry.type
class EarningMutation:
    @strawberry.mutation(directives=[requires("points:earn")], description="Post a purchase; the member earns.")
    async def record_purchase(self, info: Info, input: PurchaseInput) -> RecordPurchasePayload:
        return (await _record(info, [input]))[0]

    @strawberry.mutation(
        directives=[requires("points:earn")], description="Post up to 1,000 purchases, each with its own outcome, in order."
    )
    async def record_purchases(self, info: Info, input: list[PurchaseInput]) -> list[RecordPurchasePayload]:
        return await _record(info, input)

    @strawberry.mutation(
        directives=[requires("points:reverse")],
        description="Take back the points of what was returned, whole, by amount or by line.",
    )
    @refusing(ReturnPurchasePayload)
    async def return_purchase(self, info: Info, input: ReturnInput) -> ReturnPurchasePayload:
        context = info.context
        doors = context.doors
        posted = await returns.return_purchase(
            doors.database, doors.ledger, context.coalition, context.partner(), input.read(), doors.clock.now()
        )
        return ReturnPurchasePayload(purchase_return=show_return(info, posted))


async def _record(info: Info, input: list[PurchaseInput]) -> list[RecordPurchasePayload]:
    context = info.context
    doors = context.doors
    try:
        outcomes = await record.record_purchases(
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
        return [RecordPurchasePayload(errors=[refusal(refused)]) for _ in input]
    return [
        RecordPurchasePayload(errors=[refusal(outcome)])
        if isinstance(outcome, Refused)
        else RecordPurchasePayload(errors=[], recorded=outcome)
        for outcome in outcomes
    ]


async def earning_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Earnings by transaction, those that the caller may see."""
    found = await purchases.purchases_by_id(tx, transactions)
    return seen_by_caller(info, found, show_earning)


def earning_activity_of_rows(info: Info, rows: list[Row]) -> dict[UUID, Activity]:
    """Earnings by transaction, out of their rows of the journal, those that the caller may see."""
    return seen_by_caller(info, {row["transaction_id"]: purchases.purchase_of(row) for row in rows}, show_earning)


async def return_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Returns by transaction, those that the caller may see."""
    found = await returns.returns_by_id(tx, transactions)
    return seen_by_caller(info, found, show_return)
