"""Reading the outbox: in the order of the ledger, without a gap, from any cursor that was seen."""

import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database import Row, Tx
from gateway.statements import load_queries

sql = load_queries(__file__)

BEGINNING = "0-00000000-0000-0000-0000-000000000000-0"
_CURSOR = re.compile(r"([0-9]{1,19})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([0-9]{1,6})")


class BadCursor(ValueError):
    """A text that is no cursor of the outbox, or one of a ledger that this one is not."""


class OfAnotherServer(RuntimeError):
    """The ledger was brought here from another server by a dump, and this one counts its transactions from the beginning: what
    is new would be neither sealed nor told. See docs/operating.md, "Backups"."""


async def check_server(tx: Tx) -> None:
    """Raises OfAnotherServer."""
    if await tx.value(sql.is_of_another_server):
        raise OfAnotherServer(" ".join((OfAnotherServer.__doc__ or "").split()))


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the outbox: after so many events of one batch. Places are in the order of the ledger; as a text one is a
    cursor."""

    xid: int
    batch_id: UUID
    events: int

    @classmethod
    def read(cls, cursor: str) -> "Place":
        """Raises BadCursor."""
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise BadCursor(f"{cursor[:60]!r} is no cursor of the outbox.")
        return cls(int(found[1]), UUID(found[2]), int(found[3]))

    @classmethod
    def after(cls, row: Row) -> "Place":
        """The place after a whole batch."""
        return cls(int(row["xid"]), row["batch_id"], len(row["members"]))

    def lies_in(self, row: Row) -> bool:
        """Whether this is a place in a batch, or after it."""
        return (int(row["xid"]), row["batch_id"]) == (self.xid, self.batch_id) and self.events <= len(row["members"])

    def __str__(self) -> str:
        return f"{self.xid}-{self.batch_id}-{self.events}"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a member. `subject_id` is the transaction or hold it is about, None for a notice;
    `cursor` is the place after it, from which reading goes on."""

    cursor: str
    kind: str
    posted_at: datetime
    member_id: UUID
    subject_id: UUID | None


async def read_events(tx: Tx, after: str, batches: int) -> list[Event]:
    """The events of up to so many batches after a cursor; none means that there is nothing new yet.

    What a transaction still under way may come before is not shown before it has ended, so a reader that goes on from
    the last cursor it saw misses nothing and sees nothing twice. Raises BadCursor.
    """
    place = Place.read(after)
    return [event for row in await read_batches(tx, place, batches) for event in events_of(row, None, place)]


async def read_batches(tx: Tx, after: Place, batches: int) -> list[Row]:
    """Up to so many batches after a place, and the one in which the place lies.

    Raises BadCursor where that one is not there: the ledger was brought back to an earlier moment, what came after is gone,
    and its numbers are given out again.
    """
    rows = await tx.all(sql.batches_from, xid=str(after.xid), batch=after.batch_id, most=batches + 1)
    if str(after) != BEGINNING and not (rows and after.lies_in(rows[0])):
        raise BadCursor(f"{str(after)!r} names nothing in this ledger; begin without a cursor.")
    return rows


async def read_events_of(tx: Tx, member_id: UUID, after: Place, batches: int) -> tuple[list[Event], Place | None]:
    """One member's events among so many batches after a place, and the place to go on from, None at the end."""
    rows = await tx.all(sql.batches_of_member_from, xid=str(after.xid), batch=after.batch_id, member=member_id, most=batches + 1)
    found = [event for row in rows for event in events_of(row, {member_id}, after)]
    return found, Place.after(rows[-1]) if rows and rows[-1]["place"] > batches else None


async def end_of_outbox(tx: Tx) -> Place:
    """The place after everything that can be read now: after a batch, which a crash of the database keeps. The count of
    transactions goes back in one, over those that posted nothing."""
    last = await tx.one(sql.last_batch)
    return Place.after(last) if last else Place.read(BEGINNING)


def events_of(row: Row, members: Container[UUID] | None, after: Place) -> list[Event]:
    """A batch's events, one a member, in the batch's order: those after a place, of these members where they are named."""
    xid, batch_id = row["xid"], row["batch_id"]
    seen = after.events if (int(xid), batch_id) == (after.xid, after.batch_id) else 0
    subjects: list[UUID | None] = list(row["transactions"]) or [None] * len(row["members"])
    return [
        Event(f"{xid}-{batch_id}-{n}", row["kind"], row["posted_at"], member_id, subject_id)
        for n, (member_id, subject_id) in enumerate(zip(row["members"], subjects, strict=True), start=1)
        if n > seen and (members is None or member_id in members)
    ]
