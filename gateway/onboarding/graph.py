"""Onboarding in GraphQL: the operator's programmes, partners and contracts."""

from decimal import Decimal as PyDecimal
from fractions import Fraction

import strawberry

from gateway.access.jwks import is_of
from gateway.coalition.graph import (
    Contract,
    Custody,
    Partner,
    Programme,
    RefundPolicy,
    partner_id_of,
    show_contract,
    show_partner,
    show_programme,
)
from gateway.context import Info
from gateway.graph import PUBLIC, STEP_UP, Payload, refusing, requires
from gateway.onboarding.contracts import NewContract, publish_contract
from gateway.onboarding.partners import NewPartner, onboard_partner
from gateway.onboarding.programmes import NewProgramme, create_programme, set_programme_terms
from gateway.refusals import InputNotAccepted
from gateway.scalars import CurrencyCode, Day, Decimal, Points


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
    refund_policy: RefundPolicy | None = strawberry.field(
        default=None, description="What a return may do to a member who has spent the points; as it was if not given."
    )


@strawberry.type(directives=[PUBLIC])
class SetProgrammeTermsPayload(Payload):
    programme: Programme | None = None


@strawberry.type
class OnboardingMutation:
    @strawberry.mutation(
        directives=[requires("programmes:manage"), STEP_UP],
        description="Create a point currency, on this ledger or kept by a partner in its own system.",
    )
    @refusing(CreateProgrammePayload)
    async def create_programme(self, info: Info, input: CreateProgrammeInput) -> CreateProgrammePayload:
        new = NewProgramme(
            code=input.code,
            name=input.name,
            custody=input.custody.value,
            issuer_id=partner_id_of(info, input.issuer, "issuer") if input.issuer is not None else None,
            expires_after_months=input.expires_after_months,
            refund_policy=(input.refund_policy or RefundPolicy.ALLOW_DEBT).value,
        )
        async with info.context.changing() as tx:
            programme_id = await create_programme(tx, new)
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
            await set_programme_terms(
                tx,
                programme,
                input.pending_days,
                input.spend_most,
                input.spend_most_a_day,
                input.transferable,
                input.refund_policy.value if input.refund_policy else None,
            )
        coalition = info.context.coalition
        return SetProgrammeTermsPayload(programme=show_programme(coalition.programmes[programme.id]))

    @strawberry.mutation(
        directives=[requires("partners:manage"), STEP_UP], description="Onboard a partner, or bring its record up to date."
    )
    @refusing(OnboardPartnerPayload)
    async def onboard_partner(self, info: Info, input: OnboardPartnerInput) -> OnboardPartnerPayload:
        doors = info.context.doors
        new = NewPartner(
            code=input.code,
            name=input.name,
            protocol=None if input.protocol is strawberry.UNSET else input.protocol,
            endpoint=None if input.endpoint is strawberry.UNSET else input.endpoint,
            disconnected=None in (input.protocol, input.endpoint),
            stores=tuple((store.code, store.name) for store in input.stores),
        )
        _check_host(info, new)
        async with info.context.changing() as tx:
            partner_id = await onboard_partner(tx, new, doors.clock.now())
        coalition = info.context.coalition
        return OnboardPartnerPayload(partner=show_partner(coalition.partners[partner_id]))

    @strawberry.mutation(
        directives=[requires("partners:manage"), STEP_UP], description="Publish a partner's prices from a day on."
    )
    @refusing(PublishContractPayload)
    async def publish_contract(self, info: Info, input: PublishContractInput) -> PublishContractPayload:
        partner_id = partner_id_of(info, input.partner)
        now = info.context.doors.clock.now()
        async with info.context.changing() as tx:
            contract_id = await publish_contract(tx, info.context.coalition, partner_id, _contract(input), now)
        coalition = info.context.coalition
        published = next(c for each in coalition.contracts.values() for c in each if c.id == contract_id)
        return PublishContractPayload(contract=show_contract(coalition, published))


def _check_host(info: Info, new: NewPartner) -> None:
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


def _contract(input: PublishContractInput) -> NewContract:
    try:
        if len(input.earn_rate) > 20 or "e" in input.earn_rate.lower():
            raise ValueError
        earn_rate = Fraction(input.earn_rate)
    except (ValueError, ZeroDivisionError):
        raise InputNotAccepted(f"{input.earn_rate[:40]!r} is not a rate such as 1, 1/2 or 0.5.", "earnRate") from None
    return NewContract(
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
