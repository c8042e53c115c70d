"""Finding a member the way a partner can: by membership, by the partner's own id, or by card."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gateway import ids
from gateway.batching import Lanes
from gateway.database import Database, Row, Stuck, Tx
from gateway.refusals import CardBlocked, MembershipSuspended, MemberUnknown, NotAllowed, Refused
from gateway.statements import load_queries
from gateway.turns import Busy

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


Asked = tuple[UUID, MemberRef]
"""A partner, and how it names a member."""


class MemberLookup:
    """Finds memberships for many requests at once: those that ask while one query is under way share the next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lane = Lanes[Asked, Membership | Refused](self._find, bucket=lambda _: 0, who=lambda asked: asked[0].int, count=1)

    async def find(self, partner_id: UUID, refs: Sequence[MemberRef]) -> list[Membership | Refused]:
        """As `find_memberships`. Raises Busy, DatabaseAway."""
        return await self._lane.submit([(partner_id, ref) for ref in refs])

    async def _find(self, asked: Sequence[Asked]) -> list[Membership | Refused]:
        try:
            async with self._database.reading() as tx:
                return await _find(tx, asked)
        except Stuck as error:
            raise Busy(str(error)) from None  # as a whole: one by one they would each wait as long


async def find_memberships(tx: Tx, partner_id: UUID, refs: Sequence[MemberRef]) -> list[Membership | Refused]:
    """The partner's memberships behind `refs`, in their order, or why there is none.

    Another partner's member is unknown, in the very words of a member that does not exist.
    """
    return await _find(tx, [(partner_id, ref) for ref in refs])


async def _find(tx: Tx, asked: Sequence[Asked]) -> list[Membership | Refused]:
    found: dict[tuple[UUID, str, str], Membership | Refused] = {}
    usable = [(partner, ref) for partner, ref in asked if ref.text.isprintable()]
    by_external_id = [(partner, ref.text) for partner, ref in usable if ref.kind == "external_id"]
    by_card = [(partner, ref.text) for partner, ref in usable if ref.kind == "card"]
    by_id = [(partner, id) for partner, ref in usable if ref.kind == "membership" and (id := ids.read("mbs", ref.text))]
    if by_external_id:
        partners, texts = zip(*by_external_id, strict=True)
        for row in await tx.all(sql.memberships_by_external_id, partners=partners, external_ids=texts):
            found[row["partner_id"], "external_id", row["ref"]] = _usable(row)
    if by_card:
        partners, texts = zip(*by_card, strict=True)
        for row in await tx.all(sql.memberships_by_card, partners=partners, cards=texts):
            found[row["partner_id"], "card", row["ref"]] = _usable(row)
    if by_id:
        partners, memberships = zip(*by_id, strict=True)
        buckets = [ids.bucket_of(id) for id in memberships]
        for row in await tx.all(sql.memberships_by_id, partners=partners, buckets=buckets, memberships=memberships):
            found[row["partner_id"], "membership", ids.show("mbs", row["membership_id"])] = _usable(row)
    return [found.get((partner, ref.kind, ref.text)) or MemberUnknown(ref) for partner, ref in asked]


def _usable(row: Row) -> Membership | Refused:
    if row["card_status"] == "blocked":
        return CardBlocked(row["ref"]).of(row["member_id"])
    return MembershipSuspended().of(row["member_id"]) if row["status"] == "suspended" else membership_of(row)


async def find_membership(tx: Tx, partner_id: UUID, ref: MemberRef) -> Membership:
    """One membership. Raises MemberUnknown, CardBlocked, MembershipSuspended."""
    found = (await find_memberships(tx, partner_id, [ref]))[0]
    if isinstance(found, Refused):
        raise found
    return found


async def check_active(tx: Tx, member_id: UUID) -> None:
    """Raises NotAllowed for a member who is suspended wherever it is known: its points stay where they are."""
    known = await tx.all(sql.memberships_of_member, bucket=ids.bucket_of(member_id), member=member_id)
    if known and all(each["status"] == "suspended" for each in known):
        raise NotAllowed("A member who is suspended everywhere neither gives points nor gets any.").at("card")


async def check_acting(tx: Tx, member_id: UUID, partner_id: UUID | None) -> None:
    """Raises MembershipSuspended where a partner that acts for a member has it suspended; None: the member acts itself."""
    if partner_id is None:
        return
    row = await tx.one(sql.membership_at, bucket=ids.bucket_of(member_id), member=member_id, partner=partner_id)
    if row is not None and row["status"] == "suspended":
        raise MembershipSuspended()
