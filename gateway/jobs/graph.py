"""Background jobs in GraphQL: what they do, how they went last; and expiry, which can be looked at before and run by hand."""

from datetime import date, timedelta
from uuid import UUID

import strawberry

from gateway.context import Info
from gateway.graph import PUBLIC, STEP_UP, BadInput, Payload, refusing, requires, show_id
from gateway.ids import bucket_of
from gateway.ledger.expire import expire
from gateway.ledger.post import sql as ledger_sql
from gateway.pages import Connection, connection, no_cursor, page
from gateway.refusals import NotAllowed, Refused
from gateway.scalars import OCCURRED_OR_NOW, DateTime, Day, Points


@strawberry.type(directives=[requires("audit:read")], description="A background job.")
class Job:
    name: str
    sentence: str = strawberry.field(description="What it does.")
    schedule: str = strawberry.field(description="A cron expression; a sixth field counts seconds.")
    last_run: DateTime | None = strawberry.field(description="When it began last, in any process.")
    last_success: DateTime | None
    lag_seconds: int | None = strawberry.field(description="Since the last success; null if there was none.")
    done: Points = strawberry.field(description="How many things it has done in all.")
    error: str | None = strawberry.field(description="What the last run failed of; null if it went well.")


@strawberry.type
class JobsQuery:
    @strawberry.field(directives=[requires("audit:read")], description="The background jobs, by name.")
    async def jobs(self, info: Info) -> list[Job]:
        doors = info.context.doors
        runs, now = await doors.jobs.runs(), doors.clock.now()
        shown = []
        for name, job in sorted(doors.jobs.jobs.items()):
            run = runs.get(name)
            success = run.succeeded_at if run else None
            shown.append(
                Job(
                    name=name,
                    sentence=job.sentence,
                    schedule=job.expression,
                    last_run=DateTime(run.began_at) if run else None,
                    last_success=DateTime(success) if success else None,
                    lag_seconds=int((now - success).total_seconds()) if success else None,
                    done=Points(run.done if run else 0),
                    error=run.error if run else None,
                )
            )
        return shown

    @strawberry.field(
        directives=[requires("points:expire")],
        description="Who loses what, and when, if nothing is spent before; by day.",
    )
    async def expiry_preview(
        self, info: Info, programme: str, through: Day, first: int, after: str | None = None
    ) -> Connection["ExpiringWallet"]:
        try:
            found = info.context.coalition.programme_by_code(programme)
        except Refused as refused:
            raise BadInput(refused.message, refused) from None
        asked = page(first, after)
        after_day, after_member = _read_cursor(after) if after else (date.min, UUID(int=0))
        async with info.context.reading() as tx:
            rows = await tx.all(
                ledger_sql.expiry_preview,
                programme=found.id,
                through=through,
                after_day=after_day,
                after_bucket=bucket_of(after_member),
                after_member=after_member,
                most=first + 1,
            )
        shown = [
            ExpiringWallet(
                member=show_id("mem", row["member_id"]), expires_on=Day(row["expires_on"]), points=Points(row["points"])
            )
            for row in rows
        ]
        return connection(shown, lambda n: f"{rows[n]['expires_on']}~{rows[n]['member_id']}", asked)


def _read_cursor(text: str) -> tuple[date, UUID]:
    try:
        day, _, id = text.partition("~")
        return date.fromisoformat(day), UUID(id)
    except ValueError:
        raise no_cursor(text) from None


@strawberry.type(directives=[requires("points:expire")], description="What one member loses at the end of a day.")
class ExpiringWallet:
    member: strawberry.ID
    expires_on: Day = strawberry.field(description="The last day on which they can be spent.")
    points: Points


@strawberry.input(description="Lots to expire.")
class ExpirePointsInput:
    programme: str = strawberry.field(description="Its code, such as MER.")
    through: Day = strawberry.field(description="Lots whose last day is this or earlier.")
    occurred_at: DateTime | None = strawberry.field(default=None, description=OCCURRED_OR_NOW)


@strawberry.type(directives=[PUBLIC])
class ExpirePointsPayload(Payload):
    wallets: Points = strawberry.field(default=Points(0), description="How many wallets lost points.")
    points: Points = strawberry.field(default=Points(0), description="How many points expired.")


@strawberry.type
class JobsMutation:
    @strawberry.mutation(
        directives=[requires("points:expire"), STEP_UP], description="Expire what is due; running it again finds nothing more."
    )
    @refusing(ExpirePointsPayload)
    async def expire_points(self, info: Info, input: ExpirePointsInput) -> ExpirePointsPayload:
        context = info.context
        now = context.doors.clock.now()
        occurred_at = input.occurred_at or now
        programme = context.coalition.programme_by_code(input.programme)
        day = context.coalition.check_occurred(occurred_at, now)
        # The last second of a day is its end: what runs out that day may expire then, and not before.
        if context.coalition.day_of(min(occurred_at, now) + timedelta(seconds=1)) <= input.through:
            raise NotAllowed(f"Points that can be spent until {input.through} expire when that day has ended.").at("through")
        wallets = points = 0
        async for expired in expire(context.database, programme.id, input.through, occurred_at, day.replace(day=1), now):
            wallets, points = wallets + expired.wallets, points + expired.points
        return ExpirePointsPayload(wallets=Points(wallets), points=Points(points))
