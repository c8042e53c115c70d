"""Wallets in GraphQL: what a member has and had, and what happens to it."""

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from gateway import ids
from gateway.activity.graph import Activity, is_party
from gateway.clock import LATEST
from gateway.coalition.graph import Programme, show_programme
from gateway.context import Context, Info
from gateway.database import Row
from gateway.events.feed import TooManyFollowers, TooSlow
from gateway.events.outbox import BadCursor
from gateway.graph import BadInput, requires, show_id
from gateway.ids import LAST_ID
from gateway.pages import Connection, connection, moment_cursor, page, read_moment_cursor
from gateway.refusals import NotAllowed
from gateway.scalars import DateTime, Day, Points
from gateway.wallets import history

SEES_WALLETS = requires("balance:read", "members:lookup", "points:burn", "points:earn", "members:support")


@strawberry.type(directives=[SEES_WALLETS], description="Points that run out at the end of a day.")
class ExpiringPoints:
    expires_on: Day = strawberry.field(description="The last day on which they can be spent.")
    points: Points


@strawberry.type(directives=[SEES_WALLETS], description="A wallet at a moment of the past.")
class WalletSnapshot:
    at: DateTime
    points: Points = strawberry.field(description="The balance: available + pending + held - owed.")
    available: Points
    pending: Points
    held: Points
    owed: Points


@strawberry.type(directives=[SEES_WALLETS], description="What one transaction did to a wallet.")
class WalletEntry:
    transaction: strawberry.ID
    kind: str = strawberry.field(description="earning, return, redemption, reversal, conversion, transfer, adjustment or expiry.")
    points: Points
    balance: Points = strawberry.field(description="After it.")
    occurred_at: DateTime
    posted_at: DateTime


@strawberry.type(directives=[SEES_WALLETS], description="A member's points in one programme.")
class Wallet:
    programme: Programme
    available: Points = strawberry.field(description="Can be spent.")
    pending: Points = strawberry.field(description="Not yet available.")
    held: Points = strawberry.field(description="Set aside for something under way.")
    owed: Points = strawberry.field(description="What a return could not take back; later earnings repay it first.")
    member_id: strawberry.Private[UUID]
    programme_id: strawberry.Private[UUID]

    @strawberry.field(description="What runs out before a day, first-expiring first.")
    async def expiring(self, info: Info, before: Day) -> list[ExpiringPoints]:
        async with info.context.reading() as tx:
            rows = await tx.all(
                history.sql.expiring,
                bucket=ids.bucket_of(self.member_id),
                member=self.member_id,
                programme=self.programme_id,
                before=before,
            )
        return [ExpiringPoints(expires_on=Day(row["expires_on"]), points=row["points"]) for row in rows]

    @strawberry.field(
        directives=[requires("balance:read", "members:support")],
        description="The wallet as it stood at a moment of the ledger's time, worked out from the journal.",
    )
    async def as_of(self, info: Info, at: DateTime) -> WalletSnapshot:
        if not is_party(info, self.member_id, None):
            raise BadInput("A wallet's past is its member's own.")
        async with info.context.reading() as tx:
            found = await history.wallet_at(tx, self.member_id, self.programme_id, at)
        return WalletSnapshot(
            at=DateTime(found.at),
            points=Points(found.points),
            available=Points(found.available),
            pending=Points(found.pending),
            held=Points(found.held),
            owed=Points(found.owed),
        )

    @strawberry.field(
        directives=[requires("balance:read", "members:support")],
        description="Everything that changed the balance, the latest posted first, with the balance after it.",
    )
    async def history(self, info: Info, first: int, after: str | None = None) -> Connection[WalletEntry]:
        if not is_party(info, self.member_id, None):
            raise BadInput("A wallet's history is its member's own.")
        asked = page(first, after)
        before_at, before_id = read_moment_cursor(after) if after else (LATEST, LAST_ID)
        async with info.context.reading() as tx:
            rows = await tx.all(
                history.sql.history,
                bucket=ids.bucket_of(self.member_id),
                member=self.member_id,
                programme=self.programme_id,
                before_at=before_at,
                before_id=before_id,
                most=first + 1,
            )
        shown = [
            WalletEntry(
                transaction=show_id("txn", row["transaction_id"]),
                kind=row["kind"],
                points=Points(row["points"]),
                balance=Points(row["balance"]),
                occurred_at=DateTime(row["occurred_at"]),
                posted_at=DateTime(row["posted_at"]),
            )
            for row in rows
        ]
        return connection(shown, lambda n: moment_cursor(rows[n]["posted_at"], rows[n]["transaction_id"]), asked)


@strawberry.type(directives=[requires("balance:read")], description="Something that happened to the caller's wallets.")
class WalletEvent:
    cursor: str = strawberry.field(description="Its place: give the last one that was seen as `after`, and nothing is missed.")
    kind: str | None = strawberry.field(
        description="earning, return, redemption, reversal, conversion, transfer, adjustment, expiry, matured, hold, "
        "release, hold_expired, or expiring for a notice; null for the first, which only says where it began."
    )
    posted_at: DateTime | None
    member_id: strawberry.Private[UUID]
    subject_id: strawberry.Private[UUID | None]

    @strawberry.field(directives=[requires("profile:read")], description="The transaction, where it is one.")
    async def activity(self, info: Info) -> Activity | None:
        show = info.context.doors.activity.get(self.kind or "")
        if show is None or self.subject_id is None:
            return None
        async with info.context.reading() as tx:
            shown: Activity | None = (await show(info, tx, [self.subject_id])).get(self.subject_id)
        return shown

    @strawberry.field(description="The wallets as they are when this is told.")
    async def wallets(self, info: Info) -> list[Wallet]:
        return (await _load_wallets(info.context, [self.member_id]))[0]


@strawberry.type
class WalletSubscription:
    @strawberry.subscription(
        directives=[requires("balance:read")],
        description="What happens to the calling member's wallets, from a cursor on without a gap, and then as it happens; "
        "without a cursor, where it begins and then as it happens.",
    )
    async def wallet_changed(self, info: Info, after: str | None = None) -> AsyncGenerator[WalletEvent, None]:
        caller = info.context.caller
        member_id = caller.member_id
        if member_id is None:
            raise NotAllowed("Only a member's own app can follow its wallets.")
        try:
            async with aclosing(info.context.doors.feed.follow(member_id, after, caller.acting_partner_id)) as followed:
                async for cursor, event in followed:
                    info.context.coalition = await info.context.doors.catalogue.current()
                    yield WalletEvent(
                        cursor=cursor,
                        kind=event.kind if event else None,
                        posted_at=DateTime(event.posted_at) if event else None,
                        member_id=member_id,
                        subject_id=event.subject_id if event else None,
                    )
        except (BadCursor, TooSlow, TooManyFollowers) as error:
            raise BadInput(str(error)) from None


async def wallets_of(context: Context, member_id: UUID) -> list[Wallet]:
    """A member's wallets in every programme of this ledger, by code; those of many members are read at once."""
    loader = context.loaders.get("wallets")
    if loader is None:
        loader = context.loaders["wallets"] = DataLoader(load_fn=lambda keys: _load_wallets(context, keys))
    found: list[Wallet] = await loader.load(member_id)
    return found


async def _load_wallets(context: Context, members: list[UUID]) -> list[list[Wallet]]:
    buckets = [ids.bucket_of(member) for member in members]
    rows = await context.read(history.sql.wallets_of_members, buckets=buckets, members=members)
    programmes = {id: show_programme(p) for id, p in context.coalition.programmes.items() if p.custody == "ledger"}
    found: dict[UUID, dict[UUID, Row]] = defaultdict(dict)
    for row in rows:
        found[row["member_id"]][row["programme_id"]] = row
    ordered = sorted(programmes.items(), key=lambda item: item[1].code)
    return [[_wallet(member, id, shown, found[member].get(id)) for id, shown in ordered] for member in members]


def _wallet(member_id: UUID, programme_id: UUID, programme: Programme, row: Row | None) -> Wallet:
    """A wallet nobody has posted to yet holds nothing."""
    return Wallet(
        programme=programme,
        available=row["available"] if row else Points(0),
        pending=row["pending"] if row else Points(0),
        held=row["held"] if row else Points(0),
        owed=row["owed"] if row else Points(0),
        member_id=member_id,
        programme_id=programme_id,
    )
