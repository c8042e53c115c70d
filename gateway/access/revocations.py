"""What was revoked of tokens that have not ended by themselves: written with what ends them, read by every process."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.access.caller import Caller
from gateway.database import Row, Tx
from gateway.statements import load_queries

TOKEN_SECONDS = 300
# A client or a person gets new tokens after the old ones were revoked. A token, a login or a consent that has ended is no more,
# and whatever still names it was begun before it ended.
LIVE_AGAIN = ("client:", "sub:")
# Before every transaction.
BEGINNING = "0"
ROWS_AT_ONCE = 20_000
# How far the clocks of processes may differ.
PROCESS_AHEAD_SECONDS = 60

sql = load_queries(__file__, "revocations.sql")


def marks_of(claims: dict[str, Any]) -> tuple[str, ...]:
    """What a token can be revoked by: itself and what it was exchanged for, its client, its subject, its family, its consent, and
    the key that signed it."""
    marks = [f"jti:{claims['jti']}", f"client:{claims['client_id']}", f"sub:{claims['sub']}", f"kid:{claims['kid']}"]
    marks += [f"sid:{claims['sid']}"] if "sid" in claims else []
    marks += [f"consent:{claims['consent_id']}"] if "consent_id" in claims else []
    marks += [f"jti:{claims['origin_jti']}"] if "origin_jti" in claims else []
    return tuple(marks)


class Revocations:
    """The marks that this process knows of, with the moment of revocation. `read_at`: when it last read them, by its own
    seconds; `rows`: how many rows it has read in all."""

    def __init__(self) -> None:
        self._revoked: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._since, self._connection, self.rows = BEGINNING, "", 0
        self.read_at = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """How long ago they were read."""
        return time.monotonic() - self.read_at

    async def read_on(self, tx: Tx, now: datetime) -> None:
        """Read what was revoked since the last time. Raises DatabaseAway, Stuck.

        A transaction that is under way may have an earlier number than one that has ended, so it is read on from the first of
        those; what was read already changes nothing.
        """
        said = await tx.one(sql.oldest_running)
        assert said is not None
        # Over another connection it may be another server, which was behind this one: its numbers say nothing of what was read.
        xid, mark = self._since if said["connection"] == self._connection else BEGINNING, ""
        full = True
        while full:
            rows = await tx.all(sql.revocations_from, xid=xid, mark=mark, now=now, most=ROWS_AT_ONCE)
            self.learn(rows)
            if full := len(rows) == ROWS_AT_ONCE:
                xid, mark = rows[-1]["xid"], rows[-1]["mark"]
        ended = [mark for mark, until in self._until.items() if until <= now.timestamp()]
        for mark in ended:
            del self._revoked[mark], self._until[mark]
        self._since, self._connection, self.read_at = said["oldest"], said["connection"], time.monotonic()

    def learn(self, rows: Iterable[Row]) -> None:
        """What was revoked stays so, in whatever order it is learnt."""
        for row in rows:
            self.rows += 1
            mark, revoked, until = row["mark"], row["revoked_at"].timestamp(), row["until"].timestamp()
            self._revoked[mark] = max(revoked, self._revoked.get(mark, revoked))
            self._until[mark] = max(until, self._until.get(mark, until))

    def hit(self, marks: tuple[str, ...], issued: int) -> bool:
        """Whether a token with these marks, issued then, was revoked."""
        return bool(self._revoked) and any(
            mark in self._revoked and (not mark.startswith(LIVE_AGAIN) or issued <= self._revoked[mark]) for mark in marks
        )


async def was_revoked(tx: Tx, marks: tuple[str, ...], issued: int) -> bool:
    """Whether a token was revoked, also in the seconds of which this process does not know yet."""
    known = Revocations()
    known.learn(await tx.all(sql.revocations_of, marks=list(marks)))
    return known.hit(marks, issued)


async def has_ended(tx: Tx, caller: Caller) -> bool:
    """Whether a caller's login has ended, also if this process does not know yet: nothing lasting may follow from it."""
    if await was_revoked(tx, caller.marks, caller.issued_at):
        return True
    if (named := caller.outside) is None:
        return False
    stands = await tx.value(sql.still_names, issuer=named.issuer, subject=named.subject, subject_id=caller.subject_id)
    return not stands


async def revoke(tx: Tx, mark: str, now: datetime, ends: int | None = None) -> None:
    """End every token with this mark, within two seconds in every process. `ends`: when the only one would end by itself, in
    seconds of the epoch; else any that is issued by now may live TOKEN_SECONDS.

    It is kept for longer: the clocks of processes differ.
    """
    last = datetime.fromtimestamp(ends, UTC) if ends is not None else now + timedelta(seconds=2 * TOKEN_SECONDS)
    await tx.run(sql.revoke, mark=mark, revoked_at=now, until=last + timedelta(seconds=PROCESS_AHEAD_SECONDS))
