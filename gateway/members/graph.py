"""Members in GraphQL: the member's own view, and the pairwise view of a partner."""

from datetime import datetime
from enum import Enum
from uuid import UUID

import strawberry

from gateway import ids
from gateway.activity.graph import Activity, activity_of
from gateway.coalition.connector import PartnerRefused, PartnerSilent
from gateway.coalition.graph import Partner, show_partner
from gateway.context import Info
from gateway.graph import SEES_BALANCES, SEES_MEMBERSHIPS, BadInput, Node, requires, show_id
from gateway.members import lookup
from gateway.members.balances import Balances
from gateway.pages import Connection, connection, no_cursor, page
from gateway.privacy.graph import SEES_CONSENTS, Consent, Person, consents_of, person_of
from gateway.privacy.people import members_found_by
from gateway.refusals import BatchTooLarge, Refused
from gateway.scalars import DateTime, Points
from gateway.wallets.graph import SEES_WALLETS, Wallet, wallets_of

BATCH_MAX = 1_000
FIRST_ID = UUID(int=0)


@strawberry.enum(description="Whether points can be posted to a membership.")
class MembershipStatus(Enum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


@strawberry.enum(description="Why something from a partner's own system is there or is not.")
class Availability(Enum):
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    NOT_OFFERED = "not_offered"


@strawberry.type(directives=[SEES_BALANCES], description="What a partner's own system says of a membership.")
class NativeBalance:
    availability: Availability
    points: Points | None = strawberry.field(description="In the partner's own currency; null unless available.")


@strawberry.federation.type(
    keys=["id"], directives=[SEES_MEMBERSHIPS], description="One member as one partner may know it; its id is the partner's own."
)
class Membership(Node):
    id: strawberry.ID
    external_id: str = strawberry.field(description="The partner's own id of the person.")
    status: MembershipStatus
    since: DateTime
    membership: strawberry.Private[lookup.Membership]

    @strawberry.field
    def partner(self, info: Info) -> Partner:
        return show_partner(info.context.coalition.partners[self.membership.partner_id])

    @strawberry.field(directives=[SEES_WALLETS], description="The member's points, by programme code.")
    async def wallets(self, info: Info) -> list[Wallet]:
        return await wallets_of(info.context, self.membership.member_id)

    @strawberry.field(
        directives=[SEES_BALANCES], description="The balance in the partner's own currency, as its own system tells it now."
    )
    async def native_balance(self, info: Info) -> NativeBalance:
        connector = await info.context.doors.connections.of(self.membership.partner_id)
        if connector is None:
            return NativeBalance(availability=Availability.NOT_OFFERED, points=None)
        try:
            share = info.context.doors.connections.asked.own()
            points = await info.context.one_of(Balances).ask(connector, self.membership, share)
        except (PartnerSilent, PartnerRefused):
            return NativeBalance(availability=Availability.UNAVAILABLE, points=None)
        return NativeBalance(availability=Availability.AVAILABLE, points=Points(points))

    @strawberry.field(
        directives=[requires("members:lookup", "profile:read", "members:support")],
        description="The person; for a partner null unless the member has agreed to show it.",
    )
    async def person(self, info: Info) -> Person | None:
        return await person_of(info.context, self.membership.member_id)

    @strawberry.field(description="What this partner and the member did together, the latest first.")
    async def activity(self, info: Info, first: int, after: str | None = None) -> Connection[Activity]:
        return await activity_of(info, self.membership.member_id, self.membership.partner_id, first, after)


def show_membership(membership: lookup.Membership) -> Membership:
    return Membership(
        id=show_id("mbs", membership.id),
        external_id=membership.external_id,
        status=MembershipStatus(membership.status),
        since=DateTime(membership.since),
        membership=membership,
    )


@strawberry.enum(description="Whether a card works.")
class CardStatus(Enum):
    ACTIVE = "active"
    BLOCKED = "blocked"


@strawberry.type(directives=[requires("profile:read", "members:support")], description="A card of the coalition.")
class Card:
    number: str = strawberry.field(
        description="For a partner that acts for the member its end alone: whoever has the number can spend with it."
    )
    status: CardStatus
    since: DateTime


def _end_of(number: str) -> str:
    """Four characters of a card's number at most, and no more than a quarter of it."""
    return f"...{number[len(number) - min(len(number) // 4, 4):]}"


@strawberry.federation.type(
    keys=["id"],
    directives=[requires("profile:read", "members:support")],
    description="The shared identity: seen by the member and by operators alone.",
)
class Member(Node):
    id: strawberry.ID
    member_id: strawberry.Private[UUID]
    known_since: strawberry.Private[datetime | None]

    @strawberry.field
    async def since(self, info: Info) -> DateTime:
        if self.known_since is None:
            async with info.context.reading() as tx:
                row = await tx.one(lookup.sql.member_by_id, bucket=ids.bucket_of(self.member_id), member=self.member_id)
            if row is None:
                raise BadInput(f"There is no member {self.id}.")
            self.known_since = row["since"]
        assert self.known_since is not None
        return DateTime(self.known_since)

    @strawberry.field(description="Every partner the member has joined.")
    async def memberships(self, info: Info) -> list[Membership]:
        async with info.context.reading() as tx:
            rows = await tx.all(lookup.sql.memberships_of_member, bucket=ids.bucket_of(self.member_id), member=self.member_id)
        return [show_membership(lookup.membership_of(row)) for row in rows]

    @strawberry.field(
        directives=[requires("balance:read", "members:support")], description="The member's points, by programme code."
    )
    async def wallets(self, info: Info) -> list[Wallet]:
        return await wallets_of(info.context, self.member_id)

    @strawberry.field
    async def cards(self, info: Info) -> list[Card]:
        async with info.context.reading() as tx:
            rows = await tx.all(lookup.sql.cards_of_member, bucket=ids.bucket_of(self.member_id), member=self.member_id)
        acts = info.context.caller.acting_partner_id is not None
        return [
            Card(
                number=_end_of(r["number"]) if acts else r["number"],
                status=CardStatus(r["status"]),
                since=DateTime(r["since"]),
            )
            for r in rows
        ]

    @strawberry.field(description="What is known of the member as a person.")
    async def person(self, info: Info) -> Person | None:
        return await person_of(info.context, self.member_id)

    @strawberry.field(
        directives=[SEES_CONSENTS], description="What it allows partners, the latest first; of withdrawn ones the latest 50."
    )
    async def consents(self, info: Info) -> list[Consent]:
        return await consents_of(info, self.member_id)

    @strawberry.field(description="Everything that moved the member's points, the latest first.")
    async def activity(self, info: Info, first: int, after: str | None = None) -> Connection[Activity]:
        return await activity_of(info, self.member_id, None, first, after)


@strawberry.input(one_of=True, description="How a partner names a member: exactly one of these.")
class MemberRef:
    membership_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="The pairwise id.")
    external_id: str | None = strawberry.field(default=strawberry.UNSET, description="The partner's own id.")
    card: str | None = strawberry.field(default=strawberry.UNSET, description="The number of a card of the coalition.")

    def read(self) -> lookup.MemberRef:
        if self.membership_id:
            return lookup.MemberRef("membership", self.membership_id)
        if self.external_id:
            return lookup.MemberRef("external_id", self.external_id)
        return lookup.MemberRef("card", self.card or "")


@strawberry.input(one_of=True, description="By what an operator looks for a person: exactly one of these.")
class PersonRef:
    email: str | None = strawberry.field(default=strawberry.UNSET, description="However it is written.")
    phone: str | None = strawberry.field(default=strawberry.UNSET, description="With its country: +43 1 234567.")

    def read(self) -> tuple[str, str]:
        return ("email", self.email) if self.email else ("phone", self.phone or "")


@strawberry.type
class MembersQuery:
    @strawberry.field(directives=[requires("profile:read")], description="The member that calls.")
    async def me(self, info: Info) -> Member | None:
        member_id = info.context.caller.member_id
        # Whoever holds a member's token is one: what is known besides is read where it is asked for.
        return Member(id=show_id("mem", member_id), member_id=member_id, known_since=None) if member_id else None

    @strawberry.field(
        directives=[requires("members:lookup")],
        description="One of the calling partner's members; null if it knows none by this.",
    )
    async def membership(self, info: Info, ref: MemberRef) -> Membership | None:
        partner = info.context.partner()
        async with info.context.reading() as tx:
            found = (await lookup.find_memberships(tx, partner.id, [ref.read()]))[0]
        return show_membership(found) if isinstance(found, lookup.Membership) else None

    @strawberry.field(
        directives=[requires("members:lookup")],
        description="Up to 1,000 of the calling partner's members at once, in order; null where it knows none.",
    )
    async def memberships_by_ref(self, info: Info, refs: list[MemberRef]) -> list[Membership | None]:
        if len(refs) > BATCH_MAX:
            raise BadInput(f"refs: {BatchTooLarge(len(refs), BATCH_MAX).message}")
        partner = info.context.partner()
        async with info.context.reading() as tx:
            found = await lookup.find_memberships(tx, partner.id, [ref.read() for ref in refs])
        return [show_membership(m) if isinstance(m, lookup.Membership) else None for m in found]

    @strawberry.field(directives=[requires("members:lookup")], description="Every member of the calling partner.")
    async def memberships(self, info: Info, first: int, after: str | None = None) -> Connection[Membership]:
        partner, asked = info.context.partner(), page(first, after)
        from_id = ids.read("mbs", after) if after else FIRST_ID
        if from_id is None:
            raise no_cursor(after or "")
        async with info.context.reading() as tx:
            rows = await tx.all(lookup.sql.memberships_of_partner, partner=partner.id, after=from_id, most=first + 1)
        shown = [show_membership(lookup.membership_of(row)) for row in rows]
        return connection(shown, lambda n: shown[n].id, asked)

    @strawberry.field(directives=[requires("members:support")], description="A member by id, for operators.")
    async def member(self, info: Info, id: strawberry.ID) -> Member | None:
        member_id = ids.read("mem", id)
        return await _load_member(info, member_id) if member_id else None

    @strawberry.field(
        directives=[requires("members:support")], description="Members by what is known of them, for operators; up to 50."
    )
    async def members_by(self, info: Info, person: PersonRef) -> list[Member]:
        async with info.context.reading() as tx:
            try:
                found = await members_found_by(tx, info.context.doors.vault, *person.read())
            except Refused as refused:
                raise BadInput(refused.message, refused) from None
        return [member for id in found if (member := await _load_member(info, id)) is not None]

    @strawberry.field(directives=[requires("members:support")], description="The holder of a card, for operators.")
    async def member_by_card(self, info: Info, card: str) -> Member | None:
        async with info.context.reading() as tx:
            rows = await tx.all(lookup.sql.cards_by_number, numbers=[card])
        return await _load_member(info, rows[0]["member_id"]) if rows else None


async def _load_member(info: Info, member_id: UUID) -> Member | None:
    async with info.context.reading() as tx:
        row = await tx.one(lookup.sql.member_by_id, bucket=ids.bucket_of(member_id), member=member_id)
    info.context.brought_to_light[ids.show("mem", member_id)] = None
    return Member(id=show_id("mem", member_id), member_id=member_id, known_since=row["since"]) if row else None


async def membership_node(info: Info, id: UUID) -> Membership | None:
    """A membership by id: its own partner, its own member and operators see it."""
    caller = info.context.caller
    async with info.context.reading() as tx:
        row = await tx.one(lookup.sql.membership_by_id, bucket=ids.bucket_of(id), membership=id)
    if row is None:
        return None
    allowed = caller.kind == "operator" or row["partner_id"] == caller.partner_id or row["member_id"] == caller.member_id
    return show_membership(lookup.membership_of(row)) if allowed else None


async def member_node(info: Info, id: UUID) -> Member | None:
    """A member by id: itself and operators see it."""
    caller = info.context.caller
    return await _load_member(info, id) if caller.kind == "operator" or caller.member_id == id else None
