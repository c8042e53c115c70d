"""The running of jobs: pgqueuer's scheduler gives each due run to one process, and we note how it went."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pgqueuer.core.sm import SchedulerManager
from pgqueuer.domain.models import Schedule

from gateway.clock import Clock
from gateway.coalition.catalogue import NoCoalition
from gateway.database import Database, DatabaseAway, PostedNothing, Stuck, Tx
from gateway.logs import describe
from gateway.statements import load_queries

sql = load_queries(__file__)

RESTART_SECONDS, PULL_BACK_SECONDS = 1, 60
# Every job is due once a minute at least.
LONGEST_WAIT = timedelta(minutes=1)

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
        self._scheduler: SchedulerManager | None = None
        self._is_ending = False

    def end(self) -> None:
        """Begin no further run; `run` ends with what is under way."""
        self._is_ending = True
        if self._scheduler is not None:
            self._scheduler.shutdown.set()

    async def run(self) -> None:
        """Take part in the schedule until ended or cancelled; when the database goes away, begin anew once it is back."""
        pulling_back = asyncio.create_task(self._pull_back())
        try:
            await self._take_part()
        finally:
            pulling_back.cancel()

    async def _pull_back(self) -> None:
        """Whatever moment the database's clock has been at, no job waits longer than it does."""
        while True:
            try:
                async with self._database.reading() as tx:
                    await tx.run(sql.pull_back, jobs=list(self._scheduled), most=2 * LONGEST_WAIT)
            except (DatabaseAway, Stuck):
                pass
            except Exception as error:
                log.warning("the schedule could not be looked at", error=describe(error))
            await asyncio.sleep(PULL_BACK_SECONDS)

    async def _take_part(self) -> None:
        while self._scheduled and not self._is_ending:
            scheduler = self._scheduler = SchedulerManager(self._database.schedules())
            for name in self._scheduled:
                scheduler.schedule(name, self.jobs[name].expression)(self._run_on_schedule(self.jobs[name]))
            try:
                await scheduler.run()
            except asyncio.CancelledError:
                scheduler.shutdown.set()
                raise
            except Exception as error:
                log.warning("the schedule begins anew", error=describe(error))
            task = asyncio.current_task()
            if self._is_ending:
                return
            if task is not None and task.cancelling():  # pgqueuer, while it begins, takes that for an error like any other
                return
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
            said = describe(failed) if failed else None
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
