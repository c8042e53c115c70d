"""The coalition in GraphQL: programmes, partners, contracts, rates, and the operator's mutations."""

from bisect import bisect_right
from enum import Enum
from functools import lru_cache
from uuid import UUID

import strawberry

from gateway.coalition import catalogue
from gateway.context import Context, Info
from gateway.graph import PUBLIC, BadInput, Node, read_id, requires, show_id
from gateway.pages import Connection, connection, page
from gateway.refusals import InputNotAccepted
from gateway.scalars import CurrencyCode, Day, Decimal, Points


@strawberry.enum(description="Where the balances of a programme live.")
class Custody(Enum):
    LEDGER = "ledger"
    PARTNER = "partner"


@strawberry.enum(description="What a return may do to a member who has spent the points.")
class RefundPolicy(Enum):
    ALLOW_DEBT = "allow_debt"
    WITHIN_BALANCE = "within_balance"


@strawberry.enum(description="Whether a partner may post.")
class PartnerStatus(Enum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


@strawberry.type(directives=[PUBLIC], description="When points run out.")
class ExpiryPolicy:
    after_months: int = strawberry.field(description="At the end of the month so many months after the purchase.")


@strawberry.federation.type(keys=["id"], directives=[PUBLIC], description="A point currency.")
class Programme(Node):
    id: strawberry.ID
    code: str = strawberry.field(description="Short name, such as MER.")
    name: str
    custody: Custody
    expiry: ExpiryPolicy | None = strawberry.field(description="Null: its points never expire.")
    refund_policy: RefundPolicy
    pending_days: int = strawberry.field(description="Earned points become available after so many days.")
    spend_most: Points | None = strawberry.field(description="How many a member can spend at once; null: any number.")
    spend_most_a_day: Points | None = strawberry.field(description="How many a member can spend a day; null: any number.")
    transferable: bool = strawberry.field(description="Whether members can give them to each other.")
    issuer_id: strawberry.Private[UUID | None]

    @strawberry.field(description="Null: the coalition itself.")
    def issuer(self, info: Info) -> "Partner | None":
        return show_partner(info.context.coalition.partners[self.issuer_id]) if self.issuer_id else None


@lru_cache(maxsize=1_000)
def show_programme(programme: catalogue.Programme) -> Programme:
    expiry = ExpiryPolicy(after_months=programme.expires_after_months) if programme.expires_after_months else None
    return Programme(
        id=show_id("prg", programme.id),
        code=programme.code,
        name=programme.name,
        custody=Custody(programme.custody),
        expiry=expiry,
        refund_policy=RefundPolicy(programme.refund_policy),
        pending_days=programme.pending_days,
        spend_most=Points(programme.spend_most) if programme.spend_most else None,
        spend_most_a_day=Points(programme.spend_most_a_day) if programme.spend_most_a_day else None,
        transferable=programme.transferable,
        issuer_id=programme.issuer_id,
    )


@strawberry.federation.type(keys=["id"], directives=[requires("partner", "coalition:read")], description="A place of sale.")
class Store(Node):
    id: strawberry.ID
    code: str
    name: str


@strawberry.federation.type(
    keys=["id"],
    directives=[requires("contracts:read")],
    description="A partner's prices from a day on, until the next contract begins.",
)
class Contract(Node):
    id: strawberry.ID
    version: int
    valid_from: Day
    programme: Programme
    currency: CurrencyCode
    earn_rate: str = strawberry.field(description="Points per 1.00, as a whole number or a fraction: 1/2.")
    issue_price: Decimal = strawberry.field(description="What the partner owes the coalition per point issued.")
    redeem_price: Decimal = strawberry.field(description="What the coalition owes the partner per point redeemed there.")
    service_fee: Decimal = strawberry.field(description="Share of the issue charge, owed to the coalition.")
    conversion_price: Decimal = strawberry.field(description="What the coalition owes the partner per point it credits.")
    pending_days: int | None = strawberry.field(description="Points become available after so many days; null: as the programme.")


def show_contract(coalition: catalogue.Coalition, contract: catalogue.Contract) -> Contract:
    return Contract(
        id=show_id("con", contract.id),
        version=contract.version,
        valid_from=Day(contract.valid_from),
        programme=show_programme(coalition.programmes[contract.programme_id]),
        currency=CurrencyCode(contract.currency),
        earn_rate=str(contract.earn_rate),
        issue_price=Decimal(contract.issue_price),
        redeem_price=Decimal(contract.redeem_price),
        service_fee=Decimal(contract.service_fee),
        conversion_price=Decimal(contract.conversion_price),
        pending_days=contract.pending_days,
    )


@strawberry.federation.type(keys=["id"], directives=[PUBLIC], description="A member company of the coalition.")
class Partner(Node):
    id: strawberry.ID
    code: str
    name: str
    status: PartnerStatus
    partner_id: strawberry.Private[UUID]

    @strawberry.field(directives=[requires("partner", "coalition:read")], description="Its places of sale, by code.")
    def stores(self, info: Info, first: int, after: str | None = None) -> Connection[Store]:
        check_own(info.context, self.partner_id)
        asked = page(first, after)
        stores = info.context.coalition.stores_of.get(self.partner_id, ())
        begin = bisect_right(stores, after, key=lambda s: s.code) if after is not None else 0
        own = stores[begin : begin + asked.first + 1]
        return connection([Store(id=show_id("sto", s.id), code=s.code, name=s.name) for s in own], lambda n: own[n].code, asked)

    @strawberry.field(
        directives=[requires("contracts:read")],
        description="Its contracts, the latest first; with `on`, the one in force that day.",
    )
    def contracts(self, info: Info, on: Day | None = None) -> list[Contract]:
        coalition = info.context.coalition
        check_own(info.context, self.partner_id)
        found = [c for (partner_id, _), each in coalition.contracts.items() if partner_id == self.partner_id for c in each]
        if on is not None:
            found = [c for c in found if c.valid_from <= on][:1]
        return [show_contract(coalition, c) for c in found]


def show_partner(partner: catalogue.Partner) -> Partner:
    return Partner(
        id=show_id("ptn", partner.id),
        code=partner.code,
        name=partner.name,
        status=PartnerStatus(partner.status),
        partner_id=partner.id,
    )


def check_own(context: Context, partner_id: UUID) -> None:
    """A partner reads only itself; an operator reads all."""
    if context.caller.kind == "operator" or context.caller.partner_id == partner_id:
        return
    raise BadInput("This partner's record is not yours to read.")


@strawberry.type
class CoalitionQuery:
    @strawberry.field(directives=[requires("partner")], description="The partner that calls.")
    def partner(self, info: Info) -> Partner:
        return show_partner(info.context.partner())

    @strawberry.field(directives=[requires("coalition:read")], description="Every partner, by code.")
    def partners(self, info: Info, first: int, after: str | None = None) -> Connection[Partner]:
        asked = page(first, after)
        found = [p for p in info.context.coalition.partners.values() if after is None or p.code > after]
        found.sort(key=lambda p: p.code)
        return connection([show_partner(p) for p in found], lambda n: found[n].code, asked)

    @strawberry.field(directives=[PUBLIC], description="Every programme, by code.")
    def programmes(self, info: Info) -> list[Programme]:
        return [show_programme(p) for p in sorted(info.context.coalition.programmes.values(), key=lambda p: p.code)]


def partner_id_of(info: Info, id: strawberry.ID, field: str = "partner") -> UUID:
    partner_id = read_id("ptn", id, field)
    if partner_id not in info.context.coalition.partners:
        raise InputNotAccepted(f"There is no partner {id}.", field)
    return partner_id
