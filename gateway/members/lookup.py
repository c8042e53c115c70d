"""Finding a member the way a partner can: by membership, by the partner's own id, or by card."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gateway import ids
from gateway.database import Row, Tx, load_queries
from gateway.refusals import CardBlocked, InputNotAccepted, MembershipSuspended, MemberUnknown, Refused

sql = load_queries(__file__)


class MemberRef(msgspec.Struct, frozen=True):
    """How a partner names a member: exactly one of `kind` membership, external_id or card, and its text."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.text!r}"


class Membership(msgspec.Struct, frozen=True):
    """A member as one partner knows it; `member_id` never leaves the gateway towards a partner."""

    id: UUID
    member_id: UUID
    partner_id: UUID
    external_id: str
    status: str
    since: datetime


def membership_of(row: Row) -> Membership:
    return Membership(row["membership_id"], row["member_id"], row["partner_id"], row["external_id"], row["status"], row["since"])


async def find_memberships(tx: Tx, partner_id: UUID, refs: Sequence[MemberRef]) -> list[Membership | Refused]:
    """The partner's memberships behind `refs`, in their order, or why there is none.

    Another partner's member is unknown, in the very words of a member that does not exist.
    """
    asked, refs = refs, [ref for ref in refs if ref.text.isprintable()]
    found: dict[tuple[str, str], Membership | Refused] = {}
    external_ids = [ref.text for ref in refs if ref.kind == "external_id"]
    cards = [ref.text for ref in refs if ref.kind == "card"]
    memberships = {ref.text: id for ref in refs if ref.kind == "membership" and (id := ids.read("mbs", ref.text))}
    rows: list[tuple[str, Row]] = []
    if external_ids:
        rows += [
            ("external_id", row)
            for row in await tx.all(sql.memberships_by_external_id, partner=partner_id, external_ids=external_ids)
        ]
    if cards:
        rows += [("card", row) for row in await tx.all(sql.memberships_by_card, partner=partner_id, cards=cards)]
    if memberships:
        rows += [
            ("membership", row)
            for row in await tx.all(
                sql.memberships_by_id,
                partner=partner_id,
                buckets=[ids.bucket_of(id) for id in memberships.values()],
                memberships=list(memberships.values()),
            )
        ]
    for kind, row in rows:
        text = ids.show("mbs", row["membership_id"]) if kind == "membership" else row["ref"]
        found[kind, text] = _usable(row)
    return [found.get((ref.kind, ref.text)) or MemberUnknown(ref) for ref in asked]


def _usable(row: Row) -> Membership | Refused:
    if row["card_status"] == "blocked":
        return CardBlocked(row["ref"])
    return MembershipSuspended() if row["status"] == "suspended" else membership_of(row)


async def find_membership(tx: Tx, partner_id: UUID, ref: MemberRef) -> Membership:
    """One membership. Raises MemberUnknown, CardBlocked, MembershipSuspended."""
    found = (await find_memberships(tx, partner_id, [ref]))[0]
    if isinstance(found, Refused):
        raise found
    return found


def check_text(text: str, name: str, most: int) -> str:
    """Text that is safe to store and show: 1 to `most` printable characters. Raises InputNotAccepted."""
    if not 1 <= len(text) <= most or not text.isprintable():
        raise InputNotAccepted(f"{name} must have 1 to {most} printable characters.", name)
    return text
