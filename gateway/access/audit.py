"""The audit log: who did what to whom, with which token, and how it ended. Append-only, chained over ciphertext.

What was done is told in plain; what it was done with, which may hold personal data, is sealed. Each entry's hash covers the
one before it (SHA-256 over the previous hash, the entry's number, what is told in plain, and the ciphertext), so that an
entry cannot be changed, left out or put in between without it showing.
"""

import hashlib
from asyncio import Semaphore
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from gateway.access.vault import Vault
from gateway.cipher import CannotOpen
from gateway.clock import Clock
from gateway.database import Database, Row, Tx
from gateway.ids import named_in, show
from gateway.parties import Shares
from gateway.statements import load_queries

sql = load_queries(__file__, "audit.sql")

COMMAND_LINE = "command_line"
# Who acts or is spoken of, and what its ids begin with outside.
PARTIES = {"operator": "opr", "partner": "ptn", "member": "mem"}
# The result of what is noted before it is begun.
ASKED = "ASKED"
ABOUT_MAX = 500
DETAILS_MAX_BYTES = 128 * 1024
TEXT_MAX = 500
NOTERS_AT_ONCE, NOTERS_OF_ONE = 4, 2
CONTINUED = b'{"continued": true}'


def id_of(kind: str, id: UUID) -> str:
    """The id, in its outside form, of an operator, a partner or a member."""
    return show(PARTIES[kind], id)


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that was done. `actor_kind`: operator, partner, member, command_line or nobody; `result`: ok, or a code;
    `about`: the ids in their outside form, of members and whatever else, that it named or brought to light."""

    actor_kind: str
    actor_id: UUID | None
    client_id: str
    action: str
    result: str
    token_id: str | None = None
    about: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many bytes its details have; those of more than DETAILS_MAX_BYTES are not kept whole."""
        try:
            return len(orjson.dumps(self.details, default=str))
        except orjson.JSONEncodeError:  # JSON may come nested more deeply than it can be written again
            return DETAILS_MAX_BYTES + 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed as it stands in the log, without its details: they are `sealed`, and opened for who asks for them."""

    number: int
    at: datetime
    deed: Deed
    sealed: bytes


class Audit:
    """Writes deeds, each in a transaction of its own, or in that of what was done."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database, self._vault, self._clock = database, vault, clock
        # All of it waits for the end of one chain: whoever waits does so here, and not with a connection.
        self._all, self._shares = Semaphore(NOTERS_AT_ONCE), Shares(NOTERS_OF_ONE)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn at what ends with an entry."""
        async with self._shares.own(), self._all:
            yield

    async def note(self, deed: Deed) -> None:
        """Raises DatabaseAway, Stuck, LostRace."""
        async with self.turn():
            await self._database.decided(lambda tx: self.note_in(tx, deed))

    async def note_in(self, tx: Tx, deed: Deed) -> None:
        """As part of a transaction that does it; in further entries what speaks of more than one can name."""
        # What else was said in place of an id may be somebody's address, and would stand here in plain for good.
        about, details = named_in(*deed.about), _written(deed.details)
        for start in range(0, max(len(about), 1), ABOUT_MAX):
            await tx.run(
                sql.note_deed,
                at=self._clock.now(),
                actor_kind=deed.actor_kind,
                actor=deed.actor_id,
                client=deed.client_id,
                token=deed.token_id,
                action=deed.action,
                result=deed.result,
                about=about[start : start + ABOUT_MAX],
                sealed=self._vault.seal("audit", details if start == 0 else CONTINUED, deed.action.encode()),
            )

    async def page(
        self, before: int, most: int, actor: UUID | None = None, about: str | None = None, field: str | None = None
    ) -> list[Entry]:
        """The log, the latest first: all of it, or what `actor` did, what was done to `about`, what was done with a field."""
        async with self._database.reading() as tx:
            rows = await tx.all(sql.deeds, before=before, most=most, actor=actor, about=about, field=field)
        return [_entry(row) for row in rows]

    def details(self, entry: Entry) -> str:
        """What a deed was done with, as JSON; nothing where the key is gone."""
        try:
            return self._vault.unseal("audit", entry.sealed, entry.deed.action.encode()).decode()
        except CannotOpen:
            return "{}"


def _entry(row: Row) -> Entry:
    deed = Deed(
        row["actor_kind"], row["actor_id"], row["client_id"], row["action"], row["result"], row["token_id"], row["about"]
    )  # fmt: skip
    return Entry(row["number"], row["at"], deed, row["sealed"])


def _written(details: dict[str, Any]) -> bytes:
    """Details as they are kept, for ever; of what is too large, and was not done for that reason, how it begins."""
    try:
        written = orjson.dumps(details, default=str)
    except orjson.JSONEncodeError:
        written = orjson.dumps({**details, "variables": "nested too deeply to be kept"}, default=str)
    if len(written) <= DETAILS_MAX_BYTES:
        return written
    return orjson.dumps({name: _digested(each) for name, each in details.items()})


def _digested(value: Any) -> dict[str, Any]:
    whole = orjson.dumps(value, default=str)
    begins = whole[:TEXT_MAX].decode(errors="replace")
    return {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest(), "begins": begins}
