"""Partners' credit in GraphQL."""

from fractions import Fraction
from uuid import UUID

import strawberry

from gateway import ids
from gateway.coalition.graph import check_own, partner_id_of
from gateway.context import Info
from gateway.credit import credit
from gateway.graph import PUBLIC, STEP_UP, Money, MoneyInput, Payload, money, refusing, requires
from gateway.points import BadAmount, minor_of_decimal, round_half_even_minor
from gateway.points import Money as Amount
from gateway.refusals import InputNotAccepted


@strawberry.type(directives=[requires("contracts:read")], description="A partner's credit with the coalition.")
class PartnerCredit:
    limit: Money = strawberry.field(description="0 means that the partner pays before it issues.")
    used: Money = strawberry.field(description="Issue price of what was issued, less returns and payments; negative: prepaid.")
    warning: bool = strawberry.field(description="Whether so much is used that the partner should pay soon.")


async def credit_of(info: Info, partner_id: UUID) -> PartnerCredit | None:
    """A partner's credit as it stands."""
    async with info.context.reading() as tx:
        row = await tx.one(credit.sql.credit_of, partner=partner_id)
    if row is None:
        return None
    currency = info.context.coalition.settlement_currency
    used_minor = round_half_even_minor(Fraction(row["used"]) / 100)
    return PartnerCredit(
        limit=money(Amount(row["limit_minor"], currency)),
        used=money(Amount(used_minor, currency)),
        warning=credit.runs_short(row),
    )


@strawberry.type
class CreditQuery:
    @strawberry.field(
        directives=[requires("contracts:read")],
        description="What a partner may owe for issued points before it pays; null: no limit. Not given: the calling partner.",
    )
    async def partner_credit(self, info: Info, partner: strawberry.ID | None = None) -> PartnerCredit | None:
        partner_id = ids.read("ptn", partner) if partner else info.context.partner().id
        if partner_id is None:
            return None
        check_own(info.context, partner_id)
        return await credit_of(info, partner_id)


@strawberry.input(description="What a partner may owe for issued points.")
class SetPartnerCreditInput:
    partner: strawberry.ID
    limit: MoneyInput = strawberry.field(description="0.00: the partner pays before it issues.")
    warn_percent: int = strawberry.field(default=80, description="From what share of the limit on to warn, 1 to 100.")


@strawberry.input(description="A payment of a partner for points it issues.")
class RecordPartnerPaymentInput:
    idempotency_key: str
    partner: strawberry.ID
    amount: MoneyInput
    reference: str | None = strawberry.field(
        default=None, description="The bank's reference, up to 128 characters; a partner's payment is noted once under it."
    )


@strawberry.type(directives=[PUBLIC])
class PartnerCreditPayload(Payload):
    credit: PartnerCredit | None = None


@strawberry.type
class CreditMutation:
    @strawberry.mutation(
        directives=[requires("programmes:manage"), STEP_UP], description="Set what a partner may owe for issued points."
    )
    @refusing(PartnerCreditPayload)
    async def set_partner_credit(self, info: Info, input: SetPartnerCreditInput) -> PartnerCreditPayload:
        partner_id = partner_id_of(info, input.partner)
        limit = _amount(info, input.limit, "limit")
        async with info.context.changing() as tx:
            await credit.set_credit(tx, partner_id, limit, input.warn_percent, info.context.doors.clock.now())
        return PartnerCreditPayload(credit=await credit_of(info, partner_id))

    @strawberry.mutation(
        directives=[requires("programmes:manage"), STEP_UP],
        description="Note a payment of a partner; it frees its credit, or prepays.",
    )
    @refusing(PartnerCreditPayload)
    async def record_partner_payment(self, info: Info, input: RecordPartnerPaymentInput) -> PartnerCreditPayload:
        context = info.context
        partner_id = partner_id_of(info, input.partner)
        amount = _amount(info, input.amount, "amount")
        if context.caller.subject_id is None:
            raise InputNotAccepted("An operator notes payments.")
        payment = credit.Payment(context.caller.subject_id, input.idempotency_key, partner_id, amount, input.reference)
        async with context.database.transaction() as tx:
            await credit.pay(tx, payment, context.doors.clock.now())
        return PartnerCreditPayload(credit=await credit_of(info, partner_id))


def _amount(info: Info, given: MoneyInput, name: str) -> int:
    """Minor units of the settlement currency."""
    if given.currency != info.context.coalition.settlement_currency:
        raise InputNotAccepted(f"The coalition settles in {info.context.coalition.settlement_currency}.", name, "currency")
    try:
        return minor_of_decimal(given.amount)
    except BadAmount as error:
        raise InputNotAccepted(str(error), name, "amount") from None
