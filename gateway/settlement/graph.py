"""Settlement in GraphQL: periods, statements, positions, closing, and the expiry of points."""

from datetime import date
from enum import Enum
from uuid import UUID

import strawberry

from gateway.coalition.graph import Partner, Programme, show_partner, show_programme
from gateway.context import Context, Info
from gateway.graph import PUBLIC, STEP_UP, Money, Node, Payload, money, refusing, requires, show_id
from gateway.pages import Connection, connection, no_cursor, page
from gateway.points import Money as Amount
from gateway.scalars import DateTime, Decimal, Points, YearMonth
from gateway.settlement import close
from gateway.settlement import statements as pure

SEES_STATEMENTS = requires("settlement:read")


@strawberry.enum(description="How far a settlement month has come.")
class PeriodState(Enum):
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    APPROVED = "approved"
    SETTLED = "settled"


@strawberry.enum(description="What a line charges.")
class LineKind(Enum):
    ISSUE = "issue"
    RETURN = "return"
    FEE = "fee"
    REDEEM = "redeem"
    REVERSAL = "reversal"
    CONVERSION = "conversion"


@strawberry.type(directives=[SEES_STATEMENTS], description="Who owes or is owed: a partner, or the coalition.")
class Party:
    code: str = strawberry.field(description="The partner's code, or coalition.")
    partner: Partner | None = strawberry.field(description="Null: the coalition.")


@strawberry.type(directives=[SEES_STATEMENTS], description="One charge, rounded once, half-even, to the cent.")
class StatementLine:
    kind: LineKind
    debtor: Party
    creditor: Party
    programme: Programme
    points: Points
    unit_price: Decimal = strawberry.field(description="Per point; for a fee, the share of the issue charge.")
    gross: Money


@strawberry.type(directives=[SEES_STATEMENTS], description="What a partner did in a month.")
class StatementTotals:
    purchases: Points
    amount: Money = strawberry.field(description="What its purchases came to.")
    issued: Points
    returns: Points
    returned: Points
    redemptions: Points
    redeemed: Points
    conversions: Points
    converted_out: Points = strawberry.field(description="Points that members gave for the partner's own currency.")
    converted_in: Points = strawberry.field(description="Points of its own currency that the partner credited.")


@strawberry.federation.type(keys=["id"], directives=[SEES_STATEMENTS], description="A partner's closed month.")
class Statement(Node):
    id: strawberry.ID
    month: YearMonth
    partner: Partner
    totals: StatementTotals
    lines: list[StatementLine]
    net: Money = strawberry.field(description="What the partner owes; negative: what it is owed.")
    digest: str = strawberry.field(
        description="SHA-256 over what the statement says, however it is shown; those of its files are in the manifest."
    )


@strawberry.type(
    directives=[requires("coalition:read")], description="What a party owes net in a month; all of them sum to zero."
)
class Position:
    party: Party
    net: Money = strawberry.field(description="Owed by the party; negative: owed to it.")


@strawberry.type(directives=[requires("coalition:read")], description="Where a programme stood at the end of a month.")
class ProgrammeStanding:
    programme: Programme
    outstanding: Points = strawberry.field(description="What members hold.")
    debt: Points = strawberry.field(description="What members owe.")
    expired: Points = strawberry.field(description="What expired in the month.")


@strawberry.federation.type(
    keys=["id"], directives=[SEES_STATEMENTS], description="A settlement month in the coalition's time zone."
)
class Period(Node):
    id: strawberry.ID
    month: YearMonth
    state: PeriodState
    closed_at: DateTime | None
    first_day: strawberry.Private[date]

    @strawberry.field(description="Statements by partner code; a partner sees its own alone. None before closing.")
    async def statements(self, info: Info) -> list[Statement]:
        async with info.context.reading() as tx:
            kept = await close.statements_of_month(tx, self.first_day)
        own = info.context.caller.partner_id
        visible = [k for k in kept if info.context.caller.kind == "operator" or k.statement.partner_id == own]
        return [show_statement(info.context, k) for k in visible]

    @strawberry.field(
        directives=[requires("coalition:read")], description="Net positions; they sum to zero. None before closing."
    )
    async def positions(self, info: Info) -> list[Position]:
        context = info.context
        async with context.reading() as tx:
            kept = await close.statements_of_month(tx, self.first_day)
        if not kept:
            return []
        netted = pure.positions([k.statement for k in kept], context.coalition.settlement_currency)
        return [Position(party=_party(context, p.party_id), net=money(Amount(p.net_minor, p.currency))) for p in netted]

    @strawberry.field(
        directives=[requires("coalition:read")], description="Where each programme stood at its end. None before closing."
    )
    async def standings(self, info: Info) -> list[ProgrammeStanding]:
        context = info.context
        async with context.reading() as tx:
            kept = await close.standings_of_month(tx, self.first_day)
        shown = [
            ProgrammeStanding(
                programme=show_programme(context.coalition.programmes[s.programme_id]),
                outstanding=Points(s.outstanding),
                debt=Points(s.debt),
                expired=Points(s.expired),
            )
            for s in kept
        ]
        return sorted(shown, key=lambda s: s.programme.code)


def show_period(period: close.Period) -> Period:
    return Period(
        id=show_id("per", UUID(int=period.month.toordinal())),
        month=YearMonth(period.month),
        state=PeriodState(period.state),
        closed_at=DateTime(period.closed_at) if period.closed_at else None,
        first_day=period.month,
    )


def show_statement(context: Context, kept: close.KeptStatement) -> Statement:
    s = kept.statement
    programmes = context.coalition.programmes
    return Statement(
        id=show_id("sta", kept.id),
        month=YearMonth(kept.month),
        partner=show_partner(context.coalition.partners[s.partner_id]),
        totals=StatementTotals(
            purchases=Points(s.purchases),
            amount=money(Amount(s.amount_minor, s.currency)),
            issued=Points(s.issued),
            returns=Points(s.returns),
            returned=Points(s.returned),
            redemptions=Points(s.redemptions),
            redeemed=Points(s.redeemed),
            conversions=Points(s.conversions),
            converted_out=Points(s.converted_out),
            converted_in=Points(s.converted_in),
        ),
        lines=[
            StatementLine(
                kind=LineKind(line.kind),
                debtor=_party(context, line.debtor_id),
                creditor=_party(context, line.creditor_id),
                programme=show_programme(programmes[line.programme_id]),
                points=Points(line.points),
                unit_price=Decimal(line.unit_price.normalize()),
                gross=money(Amount(line.gross_minor, line.currency)),
            )
            for line in s.lines
        ],
        net=money(Amount(s.net_minor, s.currency)),
        digest=kept.digest,
    )


def _party(context: Context, party_id: UUID | None) -> Party:
    if party_id is None:
        return Party(code="coalition", partner=None)
    partner = context.coalition.partners[party_id]
    return Party(code=partner.code, partner=show_partner(partner))


@strawberry.type
class SettlementQuery:
    @strawberry.field(directives=[SEES_STATEMENTS], description="A settlement month.")
    async def period(self, info: Info, month: YearMonth) -> Period:
        async with info.context.reading() as tx:
            return show_period(await close.period_of_month(tx, month))

    @strawberry.field(directives=[SEES_STATEMENTS], description="The calling partner's statements, the latest first.")
    async def statements(self, info: Info, first: int, after: str | None = None) -> Connection[Statement]:
        asked = page(first, after)
        partner = info.context.partner()
        try:
            before = date.fromisoformat(f"{after}-01") if after else date.max
        except ValueError:
            raise no_cursor(after or "") from None
        async with info.context.reading() as tx:
            kept = await close.statements_of_partner(tx, partner.id, before, first + 1)
        return connection([show_statement(info.context, k) for k in kept], lambda n: f"{kept[n].month:%Y-%m}", asked)


@strawberry.input(description="A month to close.")
class ClosePeriodInput:
    month: YearMonth
    early: bool = strawberry.field(default=False, description="Also while the month runs: what comes after counts in the next.")


@strawberry.type(directives=[PUBLIC])
class ClosePeriodPayload(Payload):
    period: Period | None = None


@strawberry.type
class SettlementMutation:
    @strawberry.mutation(
        directives=[requires("settlement:close"), STEP_UP],
        description="Close and settle a month; one that is closed already gives the same again.",
    )
    @refusing(ClosePeriodPayload)
    async def close_period(self, info: Info, input: ClosePeriodInput) -> ClosePeriodPayload:
        context = info.context
        doors = context.doors
        period = await close.close_period(
            doors.database, context.coalition, doors.settlement_dir, input.month, doors.clock.now(), input.early
        )
        return ClosePeriodPayload(period=show_period(period))


async def period_node(info: Info, id: UUID) -> Period | None:
    """A period by id; its statements and positions are shown to those who may see them."""
    if not 1 <= id.int <= date.max.toordinal() or date.fromordinal(id.int).day != 1:
        return None
    async with info.context.reading() as tx:
        return show_period(await close.period_of_month(tx, date.fromordinal(id.int)))


async def statement_node(info: Info, id: UUID) -> Statement | None:
    """A statement by id: its own partner and operators see it."""
    async with info.context.reading() as tx:
        kept = await close.statement_by_id(tx, id)
    caller = info.context.caller
    if kept is None or not (caller.kind == "operator" or kept.statement.partner_id == caller.partner_id):
        return None
    return show_statement(info.context, kept)
