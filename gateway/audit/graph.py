"""The audit log in GraphQL."""

import strawberry

from gateway import ids
from gateway.access.audit import PARTIES, Entry
from gateway.context import Info
from gateway.graph import BadInput, requires, show_id
from gateway.pages import Connection, connection, no_cursor, page
from gateway.scalars import DateTime

NEWEST = 2**62
CURSOR_MAX = 19  # digits


@strawberry.type(directives=[requires("audit:read")], description="Something that somebody did.")
class AuditEntry:
    number: str = strawberry.field(description="Its place in the log, from 1, without a gap.")
    at: DateTime
    actor_kind: str = strawberry.field(description="operator, partner, member, command_line or nobody.")
    actor: strawberry.ID | None
    client: str
    token: str | None = strawberry.field(description="The id (jti) of the token that it was done with.")
    action: str
    result: str = strawberry.field(description="ok, or why not.")
    about: list[strawberry.ID] = strawberry.field(
        description="The members that it named or brought to light, and whatever else has an id, at most 500."
    )
    entry: strawberry.Private[Entry]

    @strawberry.field(description="What it was done with, as JSON.")
    def details(self, info: Info) -> str:
        return info.context.doors.audit.details(self.entry)


@strawberry.input(description="Which entries of the audit log: those that all that is given holds for.")
class AuditFilter:
    actor: strawberry.ID | None = strawberry.field(default=None, description="What this operator, partner or member did.")
    about: strawberry.ID | None = strawberry.field(
        default=None, description="What was done to this, or brought it to light: a member, a partner, a transaction."
    )
    field: str | None = strawberry.field(default=None, description="What was done with this field, such as closePeriod.")


@strawberry.type
class AuditQuery:
    @strawberry.field(directives=[requires("audit:read")], description="Who did what, the latest first.")
    async def audit(
        self, info: Info, first: int, after: str | None = None, filter: AuditFilter | None = None
    ) -> Connection[AuditEntry]:
        asked = page(first, after)
        if after is not None and not (after.isascii() and after.isdecimal() and len(after) <= CURSOR_MAX):
            raise no_cursor(after)
        only = filter or AuditFilter()
        for name, id in (("actor", only.actor), ("about", only.about)):
            if id is not None and ids.named_in(id) != [id]:
                raise BadInput(f"{name} is {id[:60]!r}, which is no id.")
        actor = ids.read(ids.prefix_of(only.actor), only.actor) if only.actor is not None else None
        before = min(int(after), NEWEST) if after else NEWEST
        async with info.context.reads:
            found = await info.context.doors.audit.page(before, first + 1, actor, only.about, only.field)
        return connection([_show(entry) for entry in found], lambda n: str(found[n].number), asked)


def _show(entry: Entry) -> AuditEntry:
    deed = entry.deed
    return AuditEntry(
        number=str(entry.number),
        at=DateTime(entry.at),
        actor_kind=deed.actor_kind,
        actor=show_id(PARTIES[deed.actor_kind], deed.actor_id) if deed.actor_id else None,
        client=deed.client_id,
        token=deed.token_id,
        action=deed.action,
        result=deed.result,
        about=[strawberry.ID(id) for id in deed.about],
        entry=entry,
    )
