"""What one request carries: who calls, the coalition as it stands, and the doors to everything else."""

from asyncio import Semaphore
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader
from strawberry.types import Info as StrawberryInfo

from gateway.access.audit import Audit
from gateway.access.caller import Caller
from gateway.access.vault import Vault
from gateway.clock import Clock
from gateway.database import Database, Row, Tx
from gateway.refusals import NotAllowed
from gateway.statements import Statement

if TYPE_CHECKING:
    from gateway.coalition.catalogue import Catalogue, Coalition, Partner
    from gateway.coalition.connections import Connections
    from gateway.conversion.convert import Converter
    from gateway.events.feed import Feed
    from gateway.jobs.jobs import Jobs
    from gateway.ledger.post import Ledger
    from gateway.ledger.prove import Proof
    from gateway.members.lookup import MemberLookup


READS_AT_ONCE = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Doors:
    """What lives as long as the process, wired together in `main.py`.

    `activity` shows transactions by their kind: each slice brings its own, since members know none of them;
    `activity_of_rows` those kinds whose rows of the journal say all there is to show.
    """

    database: Database
    clock: Clock
    catalogue: "Catalogue"
    members: "MemberLookup"
    ledger: "Ledger"
    converter: "Converter"
    connections: "Connections"
    settlement_dir: Path
    adjustment_limit: int
    partner_hosts: tuple[str, ...]
    jobs: "Jobs"
    prove: "Callable[[UUID], Awaitable[Proof | None]]"
    feed: "Feed"
    audit: Audit
    vault: Vault
    activity: "Mapping[str, Callable[[Info, Tx, list[UUID]], Awaitable[Mapping[UUID, Any]]]]"
    activity_of_rows: "Mapping[str, Callable[[Info, list[Row]], Mapping[UUID, Any]]]"


@dataclass(slots=True)
class Context:
    """One request: its caller, the coalition at its beginning, and the doors."""

    caller: Caller
    coalition: "Coalition"
    doors: Doors
    loaders: dict[str, DataLoader[Any, Any]] = field(default_factory=dict)
    reads: Semaphore = field(default_factory=lambda: Semaphore(READS_AT_ONCE))
    kept: dict[type, Any] = field(default_factory=dict)
    brought_to_light: dict[str, None] = field(default_factory=dict)
    """The members whom an answer tells of by name or to operators, as the audit log says them, whatever was asked of them."""
    answered: dict[str | int, Any] = field(default_factory=dict)
    """What the root fields came to, before it was looked at what was asked of it."""

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Tx]:
        """A transaction that changes the coalition; the rest of the request sees it as changed. Raises DatabaseAway."""
        async with self.database.transaction() as tx:
            yield tx
        self.doors.catalogue.changed()
        self.coalition = await self.doors.catalogue.current()

    @property
    def database(self) -> Database:
        return self.doors.database

    @asynccontextmanager
    async def reading(self, as_partner: UUID | None = None) -> AsyncIterator[Tx]:
        """A connection that reads what the caller may see: operators everything, partners and members their own rows; or what a
        partner may see, for the caller that acts for it.

        One request has a few of them at most, however many fields it asks for: the others wait their turn here, and not where
        they would keep everybody else waiting. So nothing that reads may begin to read within. Raises DatabaseAway.
        """
        if as_partner is not None:
            opened = self.database.reading_for(as_partner, None)
        elif self.caller.kind == "operator":
            opened = self.database.reading()
        else:
            opened = self.database.reading_for(self.caller.partner_id, self.caller.member_id)
        async with self.reads, opened as tx:
            yield tx

    async def read(self, statement: Statement, **given: Any) -> list[Row]:
        """One call of a reading function, which sees what `reading` sees in one round trip. Raises DatabaseAway."""
        async with self.reads:
            if self.caller.kind == "operator":
                async with self.database.reading() as tx:
                    return await tx.all(statement, as_partner=None, as_member=None, **given)
            return await self.database.read_for(self.caller.partner_id, self.caller.member_id, statement, **given)

    def one_of(self, kind: type[T]) -> T:
        """What the fields of this request share of a kind; made when the first of them asks."""
        kept: T = self.kept.get(kind) or self.kept.setdefault(kind, kind())
        return kept

    def partner(self) -> "Partner":
        """The partner that calls. Raises NotAllowed for anybody else, or while the partner is suspended."""
        partner = self.coalition.partners.get(self.caller.partner_id) if self.caller.partner_id else None
        if partner is None:
            raise NotAllowed("Only a partner's client can do this.")
        if partner.status != "active":
            raise NotAllowed(f"{partner.name} is suspended.")
        return partner


Info = StrawberryInfo[Context, None]
