"""Enrolment in GraphQL: the mutations by which a person becomes known to the calling partner."""

from collections.abc import Sequence

import strawberry

from gateway.context import Info
from gateway.enrolment import enrol
from gateway.graph import PUBLIC, BadInput, Payload, refusal, requires
from gateway.members.graph import BATCH_MAX, Membership, show_membership
from gateway.members.lookup import Membership as Known
from gateway.refusals import BatchTooLarge, Refused


@strawberry.input(description="A person that joins the coalition at the calling partner.")
class EnrolMemberInput:
    external_id: str = strawberry.field(description="The partner's own id of the person, up to 128 characters.")
    card: str | None = strawberry.field(default=None, description="The coalition's card that the person was given.")


@strawberry.type(directives=[PUBLIC])
class EnrolMemberPayload(Payload):
    membership: Membership | None = None


@strawberry.input(description="A member of the coalition that joins the calling partner too.")
class LinkMembershipInput:
    card: str = strawberry.field(description="The card that the person presents.")
    external_id: str = strawberry.field(description="The partner's own id of the person, up to 128 characters.")


@strawberry.type(directives=[PUBLIC])
class LinkMembershipPayload(Payload):
    membership: Membership | None = None


@strawberry.type
class EnrolmentMutation:
    @strawberry.mutation(
        directives=[requires("members:enrol")],
        description="Create a member known to the calling partner. The same person again: the membership that is there.",
    )
    async def enrol_member(self, info: Info, input: EnrolMemberInput) -> EnrolMemberPayload:
        return (await _enrol(info, [input]))[0]

    @strawberry.mutation(
        directives=[requires("members:enrol")], description="Up to 1,000 enrolments, each with its own outcome, in order."
    )
    async def enrol_members(self, info: Info, input: list[EnrolMemberInput]) -> list[EnrolMemberPayload]:
        return await _enrol(info, input)

    @strawberry.mutation(
        directives=[requires("members:enrol")],
        description="Make the holder of a card known to the calling partner under the partner's own id.",
    )
    async def link_membership(self, info: Info, input: LinkMembershipInput) -> LinkMembershipPayload:
        return (await _link(info, [input]))[0]

    @strawberry.mutation(
        directives=[requires("members:enrol")], description="Up to 1,000 links, each with its own outcome, in order."
    )
    async def link_memberships(self, info: Info, input: list[LinkMembershipInput]) -> list[LinkMembershipPayload]:
        return await _link(info, input)


async def _enrol(info: Info, input: list[EnrolMemberInput]) -> list[EnrolMemberPayload]:
    outcomes = await _join(info, [enrol.Enrolment(i.external_id, i.card) for i in input], "enrol")
    return [
        EnrolMemberPayload(errors=[refusal(o)]) if isinstance(o, Refused) else EnrolMemberPayload(membership=show_membership(o))
        for o in outcomes
    ]


async def _link(info: Info, input: list[LinkMembershipInput]) -> list[LinkMembershipPayload]:
    outcomes = await _join(info, [enrol.Enrolment(i.external_id, i.card) for i in input], "link")
    return [
        LinkMembershipPayload(errors=[refusal(o)])
        if isinstance(o, Refused)
        else LinkMembershipPayload(membership=show_membership(o))
        for o in outcomes
    ]


async def _join(info: Info, wanted: Sequence[enrol.Enrolment], verb: str) -> Sequence[Known | Refused]:
    """Enrol or link in one transaction; a race for the same id is run again and then finds what the other made."""
    if len(wanted) > BATCH_MAX:
        raise BadInput(f"input: {BatchTooLarge(len(wanted), BATCH_MAX).message}")
    try:
        partner = info.context.partner()
    except Refused as refused:
        return [refused] * len(wanted)
    now, join = info.context.doors.clock.now(), enrol.enrol if verb == "enrol" else enrol.link
    return await info.context.database.decided(lambda tx: join(tx, partner.id, wanted, now))
