"""Conversion in GraphQL: quotes and exchanges, by the member or by the partner that keeps the target currency."""

from enum import Enum
from uuid import UUID

import strawberry

from gateway.activity.graph import Activity, activity_fields, sees
from gateway.coalition.graph import Programme, show_programme
from gateway.context import Context, Info
from gateway.conversion import quotes
from gateway.conversion.orders import Conversion as Order
from gateway.conversion.orders import ConvertRequest, orders_by_id, target_membership
from gateway.conversion.rates import NewRate, publish_rate
from gateway.database import Tx
from gateway.graph import PUBLIC, SEES_CONVERSIONS, STEP_UP, Node, Payload, read_id, refusing, requires, show_id
from gateway.ledger.transactions import Transaction, transactions_by_id
from gateway.members import lookup
from gateway.members.graph import MemberRef
from gateway.refusals import InputNotAccepted, MembershipSuspended, NotAllowed, QuoteUnknown, Refused
from gateway.scalars import DateTime, Points

WHOSE = "Needed from partners; whoever converts in the member's name leaves it out."


@strawberry.type(directives=[PUBLIC], description="A price between programmes: so many points for so many.")
class Rate:
    take: Points
    give: Points


@strawberry.type(directives=[PUBLIC], description="A dated conversion rate.")
class ConversionRate:
    source: Programme = strawberry.field(name="from")
    target: Programme = strawberry.field(name="to")
    rate: Rate
    minimum: Points = strawberry.field(description="The fewest points that convert.")
    increment: Points = strawberry.field(description="Points convert in steps of this.")
    valid_from: DateTime


@strawberry.enum(description="How far an exchange has come.")
class ConversionState(Enum):
    HELD = "held"
    CREDITED = "credited"
    COMPLETED = "completed"
    RELEASED = "released"


@strawberry.type(directives=[SEES_CONVERSIONS], description="A rate locked for one member for a few minutes.")
class Quote(Node):
    id: strawberry.ID
    source: Programme = strawberry.field(name="from")
    target: Programme = strawberry.field(name="to")
    take: Points
    give: Points = strawberry.field(description="Rounded down to whole points.")
    rate: Rate
    expires_at: DateTime


@strawberry.type(directives=[SEES_CONVERSIONS], description="Points exchanged into another programme.")
class Conversion(Activity):
    programme: Programme = strawberry.field(description="The programme that was taken from.")
    target: Programme = strawberry.field(name="to", description="The programme that was given.")
    give: Points
    state: ConversionState
    partner_reference: str | None = strawberry.field(description="The credit's reference in the partner's own system.")


@strawberry.input(description="Points to exchange.")
class QuoteConversionInput:
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same key and content gets the same quote again, also after it was used."
    )
    source: str = strawberry.field(name="from", description="Code of the programme to take from, such as MER.")
    target: str = strawberry.field(name="to", description="Code of the programme to give, such as SKY.")
    take: Points
    member: MemberRef | None = strawberry.field(default=None, description=WHOSE)
    at: DateTime | None = strawberry.field(default=None, description="The moment whose rate is asked for; now if not given.")


@strawberry.type(directives=[PUBLIC])
class QuoteConversionPayload(Payload):
    quote: Quote | None = None


@strawberry.input(description="A quote to use.")
class ConvertPointsInput:
    idempotency_key: str
    quote: strawberry.ID
    member: MemberRef | None = strawberry.field(default=None, description=WHOSE)
    occurred_at: DateTime | None = strawberry.field(
        default=None, description="The moment whose rate was quoted, or within five minutes after it; now unless told."
    )


@strawberry.type(directives=[PUBLIC])
class ConvertPointsPayload(Payload):
    conversion: Conversion | None = None


@strawberry.input(description="A conversion rate from a moment on.")
class PublishRateInput:
    source: str = strawberry.field(name="from", description="Code of the programme that is taken.")
    target: str = strawberry.field(name="to", description="Code of the programme that is given.")
    take: Points
    give: Points
    minimum: Points
    increment: Points
    valid_from: DateTime


@strawberry.type(directives=[PUBLIC])
class PublishRatePayload(Payload):
    rate: ConversionRate | None = None


@strawberry.type
class ConversionQuery:
    @strawberry.field(directives=[PUBLIC], description="The conversion rates in force at a moment; now if none is given.")
    def conversion_rates(self, info: Info, on: DateTime | None = None) -> list[ConversionRate]:
        coalition, at = info.context.coalition, on or info.context.doors.clock.now()
        in_force = [rate for source, target in coalition.rates if (rate := coalition.rate_of(source, target, at))]
        return [
            ConversionRate(
                source=show_programme(coalition.programmes[r.source_id]),
                target=show_programme(coalition.programmes[r.target_id]),
                rate=Rate(take=Points(r.take), give=Points(r.give)),
                minimum=Points(r.minimum),
                increment=Points(r.increment),
                valid_from=DateTime(r.valid_from),
            )
            for r in in_force
        ]


@strawberry.type
class ConversionMutation:
    @strawberry.mutation(directives=[requires("points:convert")], description="Lock a rate for a few minutes.")
    @refusing(QuoteConversionPayload)
    async def quote_conversion(self, info: Info, input: QuoteConversionInput) -> QuoteConversionPayload:
        context = info.context
        now = context.doors.clock.now()
        if context.caller.kind == "member" and input.at is not None:
            raise NotAllowed("A member converts at today's rate.").at("at")
        request = quotes.QuoteRequest(
            source=input.source, target=input.target, take=input.take, at=input.at or now, key=input.idempotency_key,
            at_was_said=input.at is not None,
        )  # fmt: skip

        async def lock(tx: Tx) -> quotes.Quote:
            issuer_id = next((p.issuer_id for p in context.coalition.programmes.values() if p.code == input.target), None)
            member_id, refusal = await _whose(context, tx, input.member, issuer_id)
            kept = await quotes.kept_quote(tx, context.coalition, context.caller.subject_id, member_id, request)
            if kept is not None:
                return kept
            if refusal is not None:
                raise refusal
            if issuer_id is None:
                raise NotAllowed("Points convert into a programme that a partner keeps.").at("to")
            membership = await target_membership(tx, context.coalition, member_id, issuer_id)
            return await quotes.quote(tx, context.coalition, context.caller.subject_id, membership, request, now)

        made = await context.database.decided(lock)
        return QuoteConversionPayload(quote=_show_quote(info, made))

    @strawberry.mutation(
        directives=[requires("points:convert")],
        description="Use a quote: both legs happen or neither. Repeat with the same key until the state is COMPLETED.",
    )
    @refusing(ConvertPointsPayload)
    async def convert_points(self, info: Info, input: ConvertPointsInput) -> ConvertPointsPayload:
        context = info.context
        assert context.caller.subject_id is not None
        if context.caller.kind == "member" and input.occurred_at is not None:
            raise NotAllowed("A member converts now.").at("occurredAt")
        quote_id = read_id("quo", input.quote, "quote")
        async with context.reading() as tx:
            quote = await quotes.quote_by_id(tx, quote_id)
            if quote is None:  # or none that this caller may see
                raise QuoteUnknown
            issuer_id = context.coalition.programmes[quote.target_id].issuer_id
            member_id, refusal = await _whose(context, tx, input.member, issuer_id)
        request = ConvertRequest(input.idempotency_key, quote_id, input.occurred_at)
        # Whether points may flow there now is looked at where an order is opened: one that is done is told as it is.
        order = await context.doors.converter.convert(context.caller.subject_id, member_id, request, refusal)
        async with context.reading() as tx:
            posted = (await transactions_by_id(tx, [order.id])).get(order.id)
        return ConvertPointsPayload(conversion=_show(info, order, posted) if posted is not None else None)

    @strawberry.mutation(
        directives=[requires("rates:publish"), STEP_UP], description="Publish a conversion rate from a moment on."
    )
    @refusing(PublishRatePayload)
    async def publish_conversion_rate(self, info: Info, input: PublishRateInput) -> PublishRatePayload:
        new = NewRate(
            source=input.source,
            target=input.target,
            take=input.take,
            give=input.give,
            minimum=input.minimum,
            increment=input.increment,
            valid_from=input.valid_from,
        )
        async with info.context.changing() as tx:
            await publish_rate(tx, info.context.coalition, new)
        coalition = info.context.coalition
        shown = ConversionRate(
            source=show_programme(coalition.programme_by_code(new.source)),
            target=show_programme(coalition.programme_by_code(new.target)),
            rate=Rate(take=input.take, give=input.give),
            minimum=input.minimum,
            increment=input.increment,
            valid_from=input.valid_from,
        )
        return PublishRatePayload(rate=shown)


async def _whose(
    context: Context, tx: Tx, ref: MemberRef | None, issuer_id: UUID | None
) -> tuple[UUID, Refused | None]:
    """Whose points: the calling member's own, or those of a member of the calling partner, which must keep the target; and why
    nothing is begun with them, where that is so.

    Raises NotAllowed, InputNotAccepted, MemberUnknown.
    """
    if context.caller.member_id is not None:
        if ref is not None:
            raise InputNotAccepted("A member's own points are converted; leave out the member.", "member")
        try:
            await lookup.check_acting(tx, context.caller.member_id, context.caller.acting_partner_id)
        except MembershipSuspended as suspended:
            return context.caller.member_id, suspended
        return context.caller.member_id, None
    partner = context.partner()
    if issuer_id != partner.id:
        raise NotAllowed("A partner converts into its own programme alone.").at("to")
    if ref is None:
        raise InputNotAccepted("A partner names the member whose points are converted.", "member")
    (found,) = await lookup.find_memberships(tx, partner.id, [ref.read()])
    if not isinstance(found, Refused):
        return found.member_id, None
    if found.member_id is None:
        raise found
    return found.member_id, found


async def conversion_activity(info: Info, tx: Tx, transactions: list[UUID]) -> dict[UUID, Activity]:
    """Conversions by transaction, those that the caller may see."""
    orders = [each for each in await orders_by_id(tx, transactions) if sees(info, each.member_id, each.partner_id)]
    posted = await transactions_by_id(tx, [order.id for order in orders])
    return {order.id: _show(info, order, posted[order.id]) for order in orders if order.id in posted}


async def quote_node(info: Info, id: UUID) -> Quote | None:
    """A quote by id: the partner that keeps its target and operators see it, and who may read its member's activity."""
    async with info.context.reading() as tx:
        found = await quotes.quote_by_id(tx, id)
    if found is None or not sees(info, found.member_id, info.context.coalition.programmes[found.target_id].issuer_id):
        return None
    return _show_quote(info, found)


def _show_quote(info: Info, found: quotes.Quote) -> Quote:
    programmes = info.context.coalition.programmes
    return Quote(
        id=show_id("quo", found.id),
        source=show_programme(programmes[found.source_id]),
        target=show_programme(programmes[found.target_id]),
        take=Points(found.take),
        give=Points(found.give),
        rate=Rate(take=Points(found.rate_take), give=Points(found.rate_give)),
        expires_at=DateTime(found.expires_at),
    )


def _show(info: Info, order: Order, posted: Transaction) -> Conversion:
    return Conversion(
        **activity_fields(info, posted, order.source_id, -order.take),
        target=show_programme(info.context.coalition.programmes[order.target_id]),
        give=Points(order.give),
        state=ConversionState(order.state),
        partner_reference=order.partner_reference,
    )
