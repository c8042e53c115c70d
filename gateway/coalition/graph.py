"""The coalition in GraphQL: programmes, partners, contracts, rates, and the operator's mutations."""

from decimal import Decimal as PyDecimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from uuid import UUID

import strawberry

from gateway.access.jwks import is_of
from gateway.coalition import catalogue, onboard
from gateway.context import Context, Info
from gateway.graph import (
    PUBLIC,
    STEP_UP,
    BadInput,
    Connection,
    CurrencyCode,
    Day,
    Decimal,
    Node,
    Payload,
    Points,
    connection,
    page,
    read_id,
    refusing,
    requires,
    show_id,
)
from gateway.refusals import InputNotAccepted


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


@lru_cache(maxsize=64)
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
        own = sorted((s for s in info.context.coalition.stores.values() if s.partner_id == self.partner_id), key=lambda s: s.code)
        own = [s for s in own if after is None or s.code > after]
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


@strawberry.input(description="A store of a partner.")
class StoreInput:
    code: str = strawberry.field(description="The partner's own code of it, which purchases name.")
    name: str


CONNECTION = "Not given: as before; null: it has no system of its own any more."


@strawberry.input(description="A partner to onboard, or to bring up to date.")
class OnboardPartnerInput:
    code: str = strawberry.field(description="Lower-case letters and digits; it never changes.")
    name: str
    protocol: str | None = strawberry.field(default=strawberry.UNSET, description=f"Of its own system: rest_json. {CONNECTION}")
    endpoint: str | None = strawberry.field(default=strawberry.UNSET, description=f"Where its own system is: a URL. {CONNECTION}")
    stores: list[StoreInput] = strawberry.field(
        default_factory=list, description="Its stores: new ones, and new names of those that are known by their code."
    )


@strawberry.type(directives=[PUBLIC])
class OnboardPartnerPayload(Payload):
    partner: Partner | None = None


@strawberry.input(description="A new point currency.")
class CreateProgrammeInput:
    code: str = strawberry.field(description="2 to 10 capital letters and digits, such as MER; it never changes.")
    name: str
    custody: Custody = strawberry.field(description="Where its balances live.")
    issuer: strawberry.ID | None = strawberry.field(default=None, description="The partner that keeps it, if one does.")
    expires_after_months: int | None = strawberry.field(
        default=None, description="At the end of the month so many months after a purchase; never if not given."
    )
    refund_policy: RefundPolicy | None = strawberry.field(
        default=None, description="What a return may do to a member who has spent the points; ALLOW_DEBT if not given."
    )


@strawberry.type(directives=[PUBLIC])
class CreateProgrammePayload(Payload):
    programme: Programme | None = None


@strawberry.input(description="A partner's prices from a day on.")
class PublishContractInput:
    partner: strawberry.ID
    programme: str = strawberry.field(description="Its code, such as MER.")
    currency: CurrencyCode
    valid_from: Day
    earn_rate: str = strawberry.field(default="0", description="Points per 1.00: a whole number, a decimal or a fraction.")
    issue_price: Decimal = Decimal(PyDecimal(0))
    redeem_price: Decimal = Decimal(PyDecimal(0))
    service_fee: Decimal = Decimal(PyDecimal(0))
    conversion_price: Decimal = Decimal(PyDecimal(0))
    pending_days: int | None = strawberry.field(
        default=None, description="Days until points are available; as the programme if not given."
    )


@strawberry.type(directives=[PUBLIC])
class PublishContractPayload(Payload):
    contract: Contract | None = None


@strawberry.input(description="From when and how a programme's points can be spent.")
class SetProgrammeTermsInput:
    programme: str = strawberry.field(description="Its code, such as MER.")
    pending_days: int = strawberry.field(default=0, description="Earned points become available after so many days.")
    spend_most: Points | None = strawberry.field(default=None, description="How many a member can spend at once.")
    spend_most_a_day: Points | None = strawberry.field(default=None, description="How many a member can spend a day.")
    transferable: bool = strawberry.field(default=True, description="Whether members can give them to each other.")


@strawberry.type(directives=[PUBLIC])
class SetProgrammeTermsPayload(Payload):
    programme: Programme | None = None


@strawberry.type
class CoalitionMutation:
    @strawberry.mutation(
        directives=[requires("programmes:manage"), STEP_UP],
        description="Create a point currency, on this ledger or kept by a partner in its own system.",
    )
    @refusing(CreateProgrammePayload)
    async def create_programme(self, info: Info, input: CreateProgrammeInput) -> CreateProgrammePayload:
        new = onboard.NewProgramme(
            code=input.code,
            name=input.name,
            custody=input.custody.value,
            issuer_id=partner_id_of(info, input.issuer, "issuer") if input.issuer is not None else None,
            expires_after_months=input.expires_after_months,
            refund_policy=(input.refund_policy or RefundPolicy.ALLOW_DEBT).value,
        )
        async with info.context.changing() as tx:
            programme_id = await onboard.create_programme(tx, new)
        coalition = info.context.coalition
        return CreateProgrammePayload(programme=show_programme(coalition.programmes[programme_id]))

    @strawberry.mutation(
        directives=[requires("programmes:manage"), STEP_UP],
        description="Set from when and how a programme's points can be spent; what was earned before stays as it was.",
    )
    @refusing(SetProgrammeTermsPayload)
    async def set_programme_terms(self, info: Info, input: SetProgrammeTermsInput) -> SetProgrammeTermsPayload:
        programme = info.context.coalition.programme_by_code(input.programme)
        async with info.context.changing() as tx:
            await onboard.set_programme_terms(
                tx, programme, input.pending_days, input.spend_most, input.spend_most_a_day, input.transferable
            )
        coalition = info.context.coalition
        return SetProgrammeTermsPayload(programme=show_programme(coalition.programmes[programme.id]))

    @strawberry.mutation(
        directives=[requires("partners:manage"), STEP_UP], description="Onboard a partner, or bring its record up to date."
    )
    @refusing(OnboardPartnerPayload)
    async def onboard_partner(self, info: Info, input: OnboardPartnerInput) -> OnboardPartnerPayload:
        doors = info.context.doors
        new = onboard.NewPartner(
            code=input.code,
            name=input.name,
            protocol=None if input.protocol is strawberry.UNSET else input.protocol,
            endpoint=None if input.endpoint is strawberry.UNSET else input.endpoint,
            disconnected=None in (input.protocol, input.endpoint),
            stores=tuple((store.code, store.name) for store in input.stores),
        )
        _check_host(info, new)
        async with info.context.changing() as tx:
            partner_id = await onboard.onboard_partner(tx, new, doors.clock.now())
        coalition = info.context.coalition
        return OnboardPartnerPayload(partner=show_partner(coalition.partners[partner_id]))

    @strawberry.mutation(
        directives=[requires("partners:manage"), STEP_UP], description="Publish a partner's prices from a day on."
    )
    @refusing(PublishContractPayload)
    async def publish_contract(self, info: Info, input: PublishContractInput) -> PublishContractPayload:
        partner_id = partner_id_of(info, input.partner)
        async with info.context.changing() as tx:
            contract_id = await onboard.publish_contract(tx, info.context.coalition, partner_id, _contract(input))
        coalition = info.context.coalition
        published = next(c for each in coalition.contracts.values() for c in each if c.id == contract_id)
        return PublishContractPayload(contract=show_contract(coalition, published))


def partner_id_of(info: Info, id: strawberry.ID, field: str = "partner") -> UUID:
    partner_id = read_id("ptn", id, field)
    if partner_id not in info.context.coalition.partners:
        raise InputNotAccepted(f"There is no partner {id}.", field)
    return partner_id


def _check_host(info: Info, new: onboard.NewPartner) -> None:
    """An operator may connect a partner to hosts alone that who runs the gateway has named; where it is connected already, it
    stays. Raises InputNotAccepted."""
    known = next((p.endpoint for p in info.context.coalition.partners.values() if p.code == new.code), None)
    if new.endpoint is None or new.endpoint == known:
        return
    try:
        allowed = is_of(new.endpoint, info.context.doors.partner_hosts)
    except ValueError:
        return  # no address at all; that is told where it is stored
    if not allowed:
        told = f"{new.endpoint[:80]!r} is no HTTPS address of a host in GATEWAY_PARTNER_HOSTS; whoever runs the gateway adds it."
        raise InputNotAccepted(told, "endpoint")


def _contract(input: PublishContractInput) -> onboard.NewContract:
    try:
        if len(input.earn_rate) > 20 or "e" in input.earn_rate.lower():
            raise ValueError
        earn_rate = Fraction(input.earn_rate)
    except (ValueError, ZeroDivisionError):
        raise InputNotAccepted(f"{input.earn_rate[:40]!r} is not a rate such as 1, 1/2 or 0.5.", "earnRate") from None
    return onboard.NewContract(
        programme=input.programme,
        currency=input.currency,
        valid_from=input.valid_from,
        earn_rate=earn_rate,
        issue_price=input.issue_price,
        redeem_price=input.redeem_price,
        service_fee=input.service_fee,
        conversion_price=input.conversion_price,
        pending_days=input.pending_days,
    )
