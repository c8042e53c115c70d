"""The jobs, and their running: pgqueuer's scheduler gives each due run to one process, and we note how it went."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pgqueuer.core.sm import SchedulerManager
from pgqueuer.domain.models import Schedule

from gateway.access.clerk import sql as access_sql
from gateway.clock import Clock
from gateway.coalition.catalogue import Catalogue, NoCoalition
from gateway.conversion.convert import Converter
from gateway.database import Database, DatabaseAway, PostedNothing, Stuck, Tx
from gateway.ledger.expire import expire
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.seal import Signer, seal
from gateway.statements import load_queries

sql = load_queries(__file__)

AT_ONCE = 500
NOTICE_DAYS = 30
RESTART_SECONDS = 1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`expression` is a cron expression whose sixth field counts seconds; `run` answers how many things it did."""

    name: str
    sentence: str
    expression: str
    run: Callable[[datetime], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Run:
    """How a job went last, and how much it has done in all."""

    job: str
    began_at: datetime
    ended_at: datetime | None
    succeeded_at: datetime | None
    done: int
    error: str | None


class Jobs:
    """Runs jobs when they are due, for as long as the process lives; `scheduled` names those this process takes part in."""

    def __init__(self, database: Database, clock: Clock, jobs: Sequence[Job], scheduled: Sequence[str]) -> None:
        self._database, self._clock, self._scheduled = database, clock, scheduled
        self.jobs = {job.name: job for job in jobs}

    async def run(self) -> None:
        """Take part in the schedule until cancelled; when the database goes away, begin anew once it is back."""
        while self._scheduled:
            scheduler = SchedulerManager(self._database.schedules())
            for name in self._scheduled:
                scheduler.schedule(name, self.jobs[name].expression)(self._run_on_schedule(self.jobs[name]))
            try:
                await scheduler.run()
            except asyncio.CancelledError:
                scheduler.shutdown.set()
                raise
            except Exception as error:
                log.warning("the schedule begins anew", error=str(error))
            await asyncio.sleep(RESTART_SECONDS)

    async def run_now(self, name: str) -> int:
        """Run one job here and now; answers how many things it did. Raises what the job raised, after noting it."""
        job = self.jobs[name]
        async with self._database.reading() as tx:
            await tx.run(sql.begin_run, job=name, at=self._clock.now())
        done, failed = 0, None
        try:
            done = await job.run(self._clock.now())
        except Exception as error:
            failed = error
        async with self._database.reading() as tx:
            said = f"{type(failed).__name__}: {failed}" if failed else None
            await tx.run(sql.end_run, job=name, at=self._clock.now(), done=done, error=said)
        if failed is not None:
            raise failed
        return done

    async def runs(self) -> dict[str, Run]:
        """How each job went last, in any process."""
        async with self._database.reading() as tx:
            return await runs_in(tx)

    def _run_on_schedule(self, job: Job) -> Callable[[Schedule], Awaitable[None]]:
        async def run(schedule: Schedule) -> None:
            try:
                await self.run_now(job.name)
            except (DatabaseAway, Stuck, PostedNothing, NoCoalition):
                pass  # the next run finds the same work
            except Exception:
                log.exception("a job failed", job=job.name)

        return run


async def runs_in(tx: Tx) -> dict[str, Run]:
    """How each job went last, in any process."""
    return {row["job"]: Run(**row) for row in await tx.all(sql.runs)}


def all_jobs(database: Database, catalogue: Catalogue, converter: Converter, signer: Signer) -> list[Job]:
    """Every job of the gateway, by name."""

    async def mature(now: datetime) -> int:
        today = (await catalogue.current()).day_of(now)
        matured = 0
        while True:
            row = await database.post(ledger_sql.post_maturities, at=now, today=today, most=AT_ONCE)
            if row["purchases"] == 0:
                return matured
            matured += row["purchases"]

    async def run_out(now: datetime) -> int:
        today = (await catalogue.current()).day_of(now)
        ended = 0
        while True:
            (count,) = await database.post(
                ledger_sql.post_run_out_holds, at=now, today=today, month=today.replace(day=1), most=AT_ONCE
            )
            if count == 0:
                return ended
            ended += count

    async def expire_all(now: datetime) -> int:
        coalition = await catalogue.current()
        today = coalition.day_of(now)
        points = 0
        for programme in coalition.programmes.values():
            if programme.custody == "ledger" and programme.expires_after_months is not None:
                through = today - timedelta(days=1)
                async for round_ in expire(database, programme.id, through, now, today.replace(day=1), now):
                    points += round_.points
        return points

    async def notice(now: datetime) -> int:
        coalition = await catalogue.current()
        by_day = coalition.day_of(now) + timedelta(days=NOTICE_DAYS)
        told = 0
        for programme in coalition.programmes.values():
            while programme.custody == "ledger" and programme.expires_after_months is not None:
                (count,) = await database.post(
                    ledger_sql.post_expiry_notices, at=now, programme=programme.id, by_day=by_day, most=AT_ONCE
                )
                told += count
                if count == 0:
                    break
        return told

    async def fold(now: datetime) -> int:
        (folded,) = await database.post(ledger_sql.fold_deltas)
        return int(folded)

    async def seal_all(now: datetime) -> int:
        sealed = 0
        while count := await seal(database, signer, now):
            sealed += count
        return sealed

    async def convert(now: datetime) -> int:
        return await converter.resume()

    async def tidy(now: datetime) -> int:
        async with database.reading() as tx:
            return int(await tx.value(access_sql.forget_ended, now=now))

    async def free_and_warn(now: datetime) -> int:
        freed = (await database.post(sql.free_repaid_credit))["freed"]
        async with database.reading() as tx:
            rows = [row for row in await tx.all(sql.warn_of_credit, at=now) if row["short"]]
        for row in rows:
            used = str(row["used"])
            log.warning("a partner's credit runs short", partner=row["code"], limit_minor=row["limit_minor"], used_minor=used)
        return int(freed) + len(rows)

    return [
        Job("conversions", "Moves on exchanges that a crash or a silent partner left under way.", "* * * * * */5", convert),
        Job("credit", "Frees partners' credit of debts that were repaid, warns of what runs short.", "* * * * *", free_and_warn),
        Job("expire", "Expires points whose last day is over.", "* * * * * 30", expire_all),
        Job("fold", "Adds up what batches noted for settlement.", "* * * * * 15", fold),
        Job("holds", "Gives back what holds whose time is over set aside.", "* * * * * */5", run_out),
        Job("mature", "Makes pending points available whose day has come.", "* * * * * */10", mature),
        Job("notices", "Announces points that run out within 30 days.", "* * * * * 45", notice),
        Job("seal", "Seals what was posted into signed blocks.", "* * * * * */5", seal_all),
        Job("tidy", "Deletes codes, sessions and the like that have ended.", "* * * * *", tidy),
    ]
