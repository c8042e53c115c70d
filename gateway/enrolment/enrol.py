"""Enrolling members and linking memberships, up to a thousand at a time, each with its own outcome.

Both may be repeated: the same external id for the same person answers with the membership that is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway import ids
from gateway.database import LostRace, Tx
from gateway.members.lookup import MemberRef, Membership, find_memberships
from gateway.members.lookup import sql as members_sql
from gateway.refusals import CardBlocked, InputNotAccepted, MembershipSuspended, MemberUnknown, Refused, StateConflict
from gateway.statements import load_queries
from gateway.texts import check_text

sql = load_queries(__file__)

EXTERNAL_ID_MAX = 128
CARD_MAX = 64


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A person to be known under a partner's own id and, if the partner hands one out, a card of the coalition."""

    external_id: str
    card: str | None


async def enrol(tx: Tx, partner_id: UUID, wanted: Sequence[Enrolment], now: datetime) -> list[Membership | Refused]:
    """Create a member with its first membership for each that is new.

    Refusals: StateConflict when the external id or the card belongs to another member.
    """
    answers: list[Membership | Refused | None] = [_bad_text(w.external_id, w.card) for w in wanted]
    # Read before the memberships: a card whose holder joins in between is a lost race, not a conflict.
    asked = [w.card for w, answer in zip(wanted, answers, strict=True) if w.card is not None and answer is None]
    held = {row["number"] for row in await tx.all(members_sql.cards_by_number, numbers=asked)}
    await _answer_known(tx, partner_id, wanted, answers)
    new: dict[str, tuple[int, UUID]] = {}
    cards: dict[str, str] = {}
    for position, w in enumerate(wanted):
        if answers[position] is not None:
            continue
        if w.external_id in new or (w.card is not None and w.card in cards):
            answers[position] = StateConflict("This batch enrols the same external id or card twice.").at("externalId")
            continue
        new[w.external_id] = (position, ids.new_id())
        if w.card is not None:
            cards[w.card] = w.external_id
    for card in held & cards.keys():
        position, _ = new.pop(cards.pop(card))
        answers[position] = StateConflict(f"The card {card} belongs to another member.").at("card")
    taken_cards = await _claim_cards(tx, {card: new[external_id][1] for card, external_id in cards.items()}, now)
    if len(taken_cards) < len(cards):
        raise LostRace("Another request joins the same person at this moment.")
    members = [member_id for _, member_id in new.values()]
    await tx.run(sql.store_members, buckets=[ids.bucket_of(m) for m in members], members=members, since=now)
    joined = await _join(tx, partner_id, {ext: member for ext, (_, member) in new.items()}, now)
    for external_id, (position, _) in new.items():
        answers[position] = joined[external_id]
    return [answer for answer in answers if answer is not None]


async def link(tx: Tx, partner_id: UUID, wanted: Sequence[Enrolment], now: datetime) -> list[Membership | Refused]:
    """Make members that the coalition knows by card known to this partner under its own ids.

    Refusals: MemberUnknown for a card nobody has, CardBlocked, StateConflict when the external id belongs to another
    member or the member has joined this partner under another id.
    """
    answers: list[Membership | Refused | None] = [_bad_text(w.external_id, w.card) for w in wanted]
    await _answer_known(tx, partner_id, wanted, answers)
    rows = await tx.all(members_sql.cards_by_number, numbers=[w.card for w in wanted if w.card])
    cards = {row["number"]: row for row in rows}
    new: dict[str, tuple[int, UUID]] = {}
    members: set[UUID] = set()
    for position, w in enumerate(wanted):
        if answers[position] is not None:
            continue
        row = cards.get(w.card or "")
        if row is None:
            answers[position] = MemberUnknown(MemberRef("card", w.card or "")).at("card")
        elif row["status"] == "blocked":
            answers[position] = CardBlocked(w.card)
        elif w.external_id in new or row["member_id"] in members:
            answers[position] = StateConflict("This batch links the same external id or member twice.").at("externalId")
        else:
            new[w.external_id] = (position, row["member_id"])
            members.add(row["member_id"])
    joined = await _join(tx, partner_id, {ext: member for ext, (_, member) in new.items()}, now)
    for external_id, (position, _) in new.items():
        answers[position] = joined[external_id]
    return [answer for answer in answers if answer is not None]


def _bad_text(external_id: str, card: str | None) -> Refused | None:
    try:
        check_text(external_id, "externalId", EXTERNAL_ID_MAX)
        if external_id in (".", ".."):  # in an address they are a way to somewhere else
            raise InputNotAccepted(f"{external_id!r} names nobody.", "externalId")
        if card is not None:
            check_text(card, "card", CARD_MAX)
    except Refused as refused:
        return refused
    return None


async def _answer_known(
    tx: Tx, partner_id: UUID, wanted: Sequence[Enrolment], answers: list[Membership | Refused | None]
) -> None:
    """Answer those whose external id this partner has used before: the same person again, or a conflict."""
    by_id = await find_memberships(tx, partner_id, [MemberRef("external_id", w.external_id) for w in wanted])
    by_card = await find_memberships(tx, partner_id, [MemberRef("card", w.card or "") for w in wanted])
    for position, (w, known, holder) in enumerate(zip(wanted, by_id, by_card, strict=True)):
        if answers[position] is not None:
            continue
        if isinstance(known, MembershipSuspended) or isinstance(holder, MembershipSuspended):
            answers[position] = MembershipSuspended()
            continue
        if isinstance(holder, CardBlocked):
            answers[position] = holder
            continue
        if isinstance(holder, Membership) and holder.external_id == w.external_id:
            answers[position] = holder
            continue
        if not isinstance(known, Membership):
            if isinstance(holder, Membership):
                answers[position] = StateConflict(f"The holder of card {w.card} has joined under another external id.").at("card")
            continue
        other_card = StateConflict(f"You have enrolled {w.external_id!r} before, without the card {w.card}.").at("card")
        answers[position] = known if w.card is None else other_card


async def _claim_cards(tx: Tx, cards: dict[str, UUID], now: datetime) -> set[str]:
    rows = await tx.all(
        sql.claim_cards,
        numbers=list(cards),
        buckets=[ids.bucket_of(member) for member in cards.values()],
        members=list(cards.values()),
        since=now,
    )
    return {row["number"] for row in rows}


async def _join(tx: Tx, partner_id: UUID, members: dict[str, UUID], now: datetime) -> dict[str, Membership]:
    """Create memberships for (external id -> member). Raises LostRace."""
    buckets = [ids.bucket_of(member) for member in members.values()]
    new_ids = [ids.new_id_in(bucket) for bucket in buckets]
    created = await tx.all(
        sql.store_memberships,
        buckets=buckets,
        memberships=new_ids,
        members=list(members.values()),
        partner=partner_id,
        external_ids=list(members),
        since=now,
    )
    if len(created) < len(members):
        raise LostRace("Another request joins the same person at this moment.")
    claimed = await tx.all(
        sql.claim_external_ids,
        partner=partner_id,
        external_ids=list(members),
        buckets=buckets,
        memberships=new_ids,
    )
    if len(claimed) < len(members):
        raise LostRace("Another request joins the same person at this moment.")
    return {
        external_id: Membership(new_id, member, partner_id, external_id, "active", now)
        for (external_id, member), new_id in zip(members.items(), new_ids, strict=True)
    }
