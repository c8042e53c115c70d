"""The coalition's time zone as the database knows it.

The database reckons with it too, and Python's data is another release than the database's on most machines: where a law was
changed since, they differ by an hour, and with it by a month at its turn. So there is one source, whatever its release.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gateway.database import Tx
from gateway.statements import load_queries

sql = load_queries(__file__, "zone.sql")

# Outside of these the zone is taken to be as it is at their ends, in seconds of the epoch.
FIRST, LAST = 0, int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
# No zone has changed twice within a week since 1970, nor will by what is known.
STEP = 6 * 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Zone:
    """From `changes` on, in order, each of `offsets` but the first is ahead of UTC; the first is until the first change."""

    changes: tuple[datetime, ...]
    offsets: tuple[timedelta, ...]

    def day_of(self, at: datetime) -> date:
        """The calendar day of a moment."""
        return (at.astimezone(UTC) + self.offsets[bisect_right(self.changes, at)]).date()


async def read_zone(tx: Tx, name: str) -> Zone:
    """Ask where a zone differs from one STEP to the next, and then for the second between them from which it does."""
    begins, *found = await tx.all(sql.zone_steps, timezone=name, first=FIRST, last=LAST, step=STEP)
    between = [(row["before"], row["after"]) for row in found]
    was, now = [row["was"] for row in found], [row["ahead"] for row in found]
    while any(after - before > 1 for before, after in between):
        middles = [(before + after) // 2 for before, after in between]
        ahead = [row["ahead"] for row in await tx.all(sql.zone_ahead, timezone=name, moments=middles)]
        between = [
            (middle, after) if there == same else (before, middle)
            for (before, after), middle, there, same in zip(between, middles, ahead, was, strict=True)
        ]
    return Zone(
        tuple(datetime.fromtimestamp(after, UTC) for _, after in between),
        tuple(timedelta(seconds=ahead) for ahead in (begins["ahead"], *now)),
    )
