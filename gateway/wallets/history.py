"""A wallet's past: as it stood at a moment, its running balance, and the trace from a spent point to its purchase."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from gateway.clock import LATEST
from gateway.database import Row, Tx
from gateway.ids import LAST_ID, bucket_of
from gateway.statements import load_queries

sql = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A wallet at a moment of the ledger's time; `points` = available + pending + held - owed."""

    at: datetime
    points: int
    pending: int
    held: int
    owed: int

    @property
    def available(self) -> int:
        return self.points - self.pending - self.held + self.owed


@dataclass(frozen=True, slots=True)
class Origin:
    """Points of a spent lot that one transaction had brought: a purchase with its receipt, an adjustment, or a gift that
    lies too many others back."""

    transaction_id: UUID
    kind: str
    receipt: str | None
    partner_id: UUID | None
    occurred_at: datetime
    points: int


async def wallet_at(tx: Tx, member_id: UUID, programme_id: UUID, at: datetime) -> Snapshot:
    """How a wallet stood when everything posted up to `at` had happened, worked out from the journal."""
    row = await tx.one(sql.wallet_at, bucket=bucket_of(member_id), member=member_id, programme=programme_id, at=at)
    assert row is not None
    return Snapshot(at, row["points"], row["pending"], row["held"], row["owed"])


PAGE = 1_000


async def whole(tx: Tx, member_id: UUID, programme_id: UUID) -> AsyncIterator[Row]:
    """Everything that changed a wallet, the latest posted first, with the balance after it."""
    at, id = LATEST, LAST_ID
    while True:
        rows = await tx.all(
            sql.history,
            bucket=bucket_of(member_id),
            member=member_id,
            programme=programme_id,
            before_at=at,
            before_id=id,
            most=PAGE,
        )
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        at, id = rows[-1]["posted_at"], rows[-1]["transaction_id"]


GENERATIONS_MAX = 20


async def origins(tx: Tx, lot_id: UUID, transaction_id: UUID) -> list[Origin]:
    """Where the points came from that a transaction took out of a lot; of points that another member gave, where they had
    come from before, through GENERATIONS_MAX gifts.

    Points of a lot are alike, so it is a rule that says which went first: those that came first. A return takes back
    what its own purchase brought, as far as that is still there; what a reversal gave back counts as never taken.
    """
    return await _Trace(tx).origins(lot_id, transaction_id, GENERATIONS_MAX)


class _Trace:
    """One walk back through gifts. Members may give the same points to each other again and again, so what was worked out of
    a gift is kept: each is looked at once."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._known: dict[tuple[UUID, UUID, int], list[Origin]] = {}

    async def origins(self, lot_id: UUID, transaction_id: UUID, generations: int) -> list[Origin]:
        place = (lot_id, transaction_id, generations)
        if place not in self._known:
            self._known[place] = await self._origins(*place)
        return self._known[place]

    async def _origins(self, lot_id: UUID, transaction_id: UUID, generations: int) -> list[Origin]:
        bucket = bucket_of(lot_id)
        credits = await self._tx.all(sql.credits_of_lot, bucket=bucket, lot=lot_id)
        takes = await self._tx.all(sql.takes_of_lot, bucket=bucket, lot=lot_id)
        left = OrderedDict((row["transaction_id"], row["points"]) for row in credits)
        for take in takes:
            if take["transaction_id"] != transaction_id:
                _take_from(left, take["kept"], take["purchase_id"])
                continue
            before = left.copy()
            taken = _take_from(left, take["points"], take["purchase_id"])
            found: list[Origin] = []
            for row in credits:
                id = row["transaction_id"]
                if id in taken:
                    found += await self._origins_of_credit(lot_id, row, row["points"] - before[id], taken[id], generations)
            return found
        return []

    async def _origins_of_credit(self, lot_id: UUID, credit: Row, skipped: int, points: int, generations: int) -> list[Origin]:
        """Where `points` of a credit came from, after the first `skipped` of them."""
        if credit["kind"] != "transfer" or generations == 0:
            return [_origin(credit, points)]
        gift = credit["transaction_id"]
        given = await self._tx.one(sql.lot_before_transfer, bucket=bucket_of(lot_id), lot=lot_id, transaction=gift)
        assert given is not None
        found: list[Origin] = []
        for origin in await self.origins(given["lot_id"], given["other_transaction_id"], generations - 1):
            part = min(max(origin.points - skipped, 0), points)
            skipped = max(skipped - origin.points, 0)
            points -= part
            if part:
                found.append(replace(origin, points=part))
        return found


def _take_from(left: OrderedDict[UUID, int], wanted: int, own: UUID | None) -> dict[UUID, int]:
    """Take points from what is left of each credit, the earliest first, a return's own purchase before all others. What is used
    up is taken out of `left`, so that no credit is looked at again and again."""
    taken: dict[UUID, int] = {}
    while wanted and left:
        id = own if own in left else next(iter(left))
        assert id is not None
        points = min(wanted, left[id])
        if points == left[id]:
            del left[id]
        else:
            left[id] -= points
        if points:
            taken[id] = points
        wanted -= points
    return taken


def _origin(row: Row, points: int) -> Origin:
    return Origin(row["transaction_id"], row["kind"], row["receipt"], row["partner_id"], row["occurred_at"], points)
