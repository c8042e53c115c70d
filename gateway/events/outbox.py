"""Reading the outbox: in the order of the ledger, without a gap, from any cursor that was seen."""

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database import Row, Tx, load_queries

sql = load_queries(__file__)

BEGINNING = "0-00000000-0000-0000-0000-000000000000-0"
_CURSOR = re.compile(r"(\d{1,19})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(\d{1,6})")


class BadCursor(ValueError):
    """A text that is no cursor of the outbox."""


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
    found = _CURSOR.fullmatch(after)
    if found is None:
        raise BadCursor(f"{after[:60]!r} is no cursor of the outbox.")
    xid, batch_id, seen = found[1], UUID(found[2]), int(found[3])
    rows = await tx.all(sql.batches_from, xid=xid, batch=batch_id, most=batches + 1)
    events = []
    for row in rows:
        skip = seen if (row["xid"], row["batch_id"]) == (xid, batch_id) else 0
        events += _events(row)[skip:]
    return events


def _events(row: Row) -> list[Event]:
    """A batch's events, one a member, in the batch's order."""
    subjects: list[UUID | None] = list(row["transactions"]) or [None] * len(row["members"])
    return [
        Event(f"{row['xid']}-{row['batch_id']}-{n}", row["kind"], row["posted_at"], member_id, subject_id)
        for n, (member_id, subject_id) in enumerate(zip(row["members"], subjects, strict=True), start=1)
    ]
