"""Privacy in GraphQL: the person behind a member, and the consents that a member gives."""

from typing import Any
from uuid import UUID

import strawberry

from gateway import ids
from gateway.access import consents
from gateway.access.audit import Deed
from gateway.access.revocations import has_ended
from gateway.access.scopes import DELEGABLE
from gateway.coalition.graph import Partner, show_partner
from gateway.context import Context, Info
from gateway.database import Tx
from gateway.graph import PUBLIC, SEES_MEMBERSHIPS, Payload, refusing, requires, show_id
from gateway.privacy import forgetting, people
from gateway.refusals import InputNotAccepted, NotAllowed
from gateway.scalars import DateTime
from gateway.texts import check_text

SEES_CONSENTS = requires("profile:read", "consents:manage", "members:support")


@strawberry.type(directives=[SEES_MEMBERSHIPS], description="What is known of a member as a person; kept encrypted.")
class Person:
    name: str | None
    email: str | None
    phone: str | None = strawberry.field(description="E.164: +4312345678.")


@strawberry.type(directives=[SEES_CONSENTS], description="What a member allows a partner to see and to do in its name.")
class Consent:
    id: strawberry.ID
    partner: Partner
    purpose: str
    scopes: list[str] = strawberry.field(description="What the partner may do for the member.")
    data_classes: list[str] = strawberry.field(description="What it may see of the person: contact.")
    notice_version: str = strawberry.field(description="Of the words that were agreed to.")
    granted_at: DateTime
    withdrawn_at: DateTime | None


def show_consent(info: Info, consent: consents.Consent) -> Consent:
    return Consent(
        id=show_id("cns", consent.id),
        partner=show_partner(info.context.coalition.partners[consent.partner_id]),
        purpose=consent.purpose,
        scopes=sorted(consent.scopes),
        data_classes=sorted(consent.data_classes),
        notice_version=consent.notice_version,
        granted_at=DateTime(consent.granted_at),
        withdrawn_at=DateTime(consent.withdrawn_at) if consent.withdrawn_at else None,
    )


async def person_of(context: Context, member_id: UUID) -> Person | None:
    """What is known of a member, as far as the caller may see it: a partner with the member's consent alone."""
    acting = context.caller.acting_partner_id
    context.brought_to_light[ids.show("mem", member_id)] = None
    # Who acts for a member sees of the person what the partner itself may see, and not what the member does.
    async with context.reading(as_partner=acting) as tx:
        found = await people.read_person(tx, context.doors.vault, member_id)
    return Person(name=found.name, email=found.email, phone=found.phone) if found else None


async def consents_of(info: Info, member_id: UUID) -> list[Consent]:
    """What a member has agreed to, the latest first; to a partner that acts for it, what it has agreed to with that partner."""
    acting = info.context.caller.acting_partner_id
    async with info.context.reading() as tx:
        found = await consents.consents_of(tx, member_id)
    return [show_consent(info, each) for each in found if acting is None or each.partner_id == acting]


@strawberry.input(description="What to know of the calling member; what is left out is forgotten.")
class UpdatePersonInput:
    name: str | None = None
    email: str | None = None
    phone: str | None = strawberry.field(default=None, description="With its country: +43 1 234567.")


@strawberry.input(description="To forget the person for good.")
class ForgetPersonInput:
    confirm: bool = strawberry.field(description="true: what is forgotten cannot be had back.")


@strawberry.type(directives=[PUBLIC])
class UpdatePersonPayload(Payload):
    person: Person | None = None


@strawberry.input(description="A consent to give.")
class GrantConsentInput:
    partner: str = strawberry.field(description="Its code.")
    purpose: str = strawberry.field(description="What for, as the app said it.")
    scopes: list[str] = strawberry.field(default_factory=list, description="What the partner may do: scopes of a member's own.")
    data_classes: list[str] = strawberry.field(default_factory=list, description="What it may see of the person: contact.")


@strawberry.input(description="A consent to end.")
class WithdrawConsentInput:
    consent: strawberry.ID


@strawberry.type(directives=[PUBLIC])
class ConsentPayload(Payload):
    consent: Consent | None = None


@strawberry.type
class PrivacyMutation:
    @strawberry.mutation(directives=[requires("profile:write")], description="Say what is known of the calling member.")
    @refusing(UpdatePersonPayload)
    async def update_person(self, info: Info, input: UpdatePersonInput) -> UpdatePersonPayload:
        member_id, doors = _member(info), info.context.doors
        person = people.normal_person(input.name, input.email, input.phone)

        async def store(tx: Tx) -> None:
            await _decide(info, tx, member_id)
            await people.store_person(tx, doors.vault, member_id, person, doors.clock.now())
            await doors.audit.note_in(tx, _deed(info, "update person"))

        async with doors.audit.turn():
            await doors.database.decided(store)
        return UpdatePersonPayload(person=Person(name=person.name, email=person.email, phone=person.phone))

    @strawberry.mutation(
        directives=[requires("profile:write")],
        description="Forget what is known of the calling member as a person, with the key that it was encrypted with, and its "
        "logins; the token that asks for it ends within seconds.",
    )
    @refusing(UpdatePersonPayload)
    async def forget_person(self, info: Info, input: ForgetPersonInput) -> UpdatePersonPayload:
        member_id, doors = _member(info), info.context.doors
        if not input.confirm:
            raise InputNotAccepted("confirm must be true: what is forgotten cannot be had back.", "confirm")

        async def forget_it(tx: Tx) -> None:
            await forgetting.lock(tx, member_id)
            await _decide(info, tx, member_id)
            await forgetting.forget(tx, member_id, doors.clock.now())
            await doors.audit.note_in(tx, _deed(info, "forget person"))

        async with doors.audit.turn():
            await doors.database.decided(forget_it)
        return UpdatePersonPayload()

    @strawberry.mutation(
        directives=[requires("consents:manage")],
        description="Allow a partner to act for the calling member, and to see its data.",
    )
    @refusing(ConsentPayload)
    async def grant_consent(self, info: Info, input: GrantConsentInput) -> ConsentPayload:
        member_id, doors = _member(info), info.context.doors
        partner = next((p for p in info.context.coalition.partners.values() if p.code == input.partner), None)
        if partner is None:
            raise InputNotAccepted(f"There is no partner {input.partner[:60]!r}.", "partner")
        if partner.status != "active":
            raise NotAllowed(f"{partner.name} is suspended.").at("partner")
        check_text(input.purpose, "purpose", 200)
        _check_known("scopes", input.scopes, DELEGABLE)
        _check_known("dataClasses", input.data_classes, consents.DATA_CLASSES.keys())
        evidence = {"given": "by the member's app", "client": info.context.caller.client_id}

        async def give(tx: Tx) -> consents.Consent:
            await _decide(info, tx, member_id)
            given = await consents.grant(
                tx, member_id, partner.id, input.purpose, frozenset(input.scopes), frozenset(input.data_classes), evidence,
                doors.clock.now(),
            )  # fmt: skip
            await doors.audit.note_in(tx, _deed(info, "give consent", given))
            return given

        async with doors.audit.turn():
            return ConsentPayload(consent=show_consent(info, await doors.database.decided(give)))

    @strawberry.mutation(
        directives=[requires("consents:manage")],
        description="End a consent; what the partner got under it ends everywhere within two seconds.",
    )
    @refusing(ConsentPayload)
    async def withdraw_consent(self, info: Info, input: WithdrawConsentInput) -> ConsentPayload:
        member_id, doors = _member(info), info.context.doors
        consent_id = ids.read("cns", input.consent)

        async def end(tx: Tx) -> consents.Consent:
            await _decide(info, tx, member_id)
            ended = await consents.withdraw(tx, member_id, consent_id, doors.clock.now()) if consent_id else None
            if ended is None:
                raise InputNotAccepted(f"{input.consent[:60]!r} is no consent of yours.", "consent")
            await doors.audit.note_in(tx, _deed(info, "withdraw consent", ended))
            return ended

        async with doors.audit.turn():
            return ConsentPayload(consent=show_consent(info, await doors.database.decided(end)))


async def _decide(info: Info, tx: Tx, member_id: UUID) -> None:
    """Nobody else decides for this member until the transaction ends. Raises NotAllowed where the caller's login has ended,
    which this process may not know yet: what is stored now would outlive it."""
    await consents.decide_alone(tx, member_id)
    if await has_ended(tx, info.context.caller):
        raise NotAllowed("This login has ended.")


def _check_known(name: str, given: list[str], known: Any) -> None:
    unknown = [each for each in given if each not in known]
    if unknown:
        raise InputNotAccepted(f"{name}: {unknown[0][:60]!r} is none of {', '.join(sorted(known))}.", name)


def _member(info: Info) -> UUID:
    """The member itself, not a partner that acts for it. Raises NotAllowed."""
    caller = info.context.caller
    if caller.member_id is None or caller.acting_partner_id is not None:
        raise NotAllowed("Only the member itself can do this.")
    return caller.member_id


def _deed(info: Info, action: str, consent: consents.Consent | None = None) -> Deed:
    caller = info.context.caller
    about = [ids.show("mem", _member(info))]
    if consent:
        about += [ids.show("cns", consent.id), ids.show("ptn", consent.partner_id)]
    return Deed("member", caller.member_id, caller.client_id, action, "ok", caller.token_id, about)
