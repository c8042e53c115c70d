"""Background jobs: they run by themselves, say how they went, and twice is as good as once."""

import asyncio
import re
from datetime import datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest
from croniter import croniter
from pgqueuer.sm import SchedulerManager

from gateway.jobs import jobs as jobs_module
from gateway.jobs.jobs import Jobs
from tests.ledger.test_batches import waits
from tests.points import run_job, speaking_of, terms
from tests.world import Place, World, open_world


async def test_jobs_run_by_themselves_and_are_visible_to_operators_and_in_metrics(place: Place) -> None:
    async with open_world(place, jobs=("seal", "holds")) as world:
        await world.record("10.00")
        async with asyncio.timeout(30):
            while not (await world.sql("select 1 from job_run where job = 'seal' and done > 0")):
                await asyncio.sleep(0.1)
        await look_at_jobs(world)


async def test_jobs_go_on_when_the_databases_clock_was_ahead_and_is_right_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "PULL_BACK_SECONDS", 0.2)
    async with open_world(place, jobs=("seal",)) as world:
        async with asyncio.timeout(30):
            while not await world.sql("select from job_run"):
                await asyncio.sleep(0.1)
            await world.sql("update pgqueuer_schedules set next_run = now() + interval '1 day', heartbeat = now() + interval '1 day'")
            while await world.sql("select from pgqueuer_schedules where next_run > now() + interval '1 minute' or heartbeat > now()"):
                await asyncio.sleep(0.1)
            began = (await world.sql("select began_at from job_run"))[0][0]
            world.clock.set(world.clock.now() + timedelta(seconds=1))
            while (await world.sql("select began_at from job_run"))[0][0] == began:
                await asyncio.sleep(0.1)


async def test_every_job_is_due_within_what_is_taken_for_its_longest_wait(world: World) -> None:
    for job in world.jobs.jobs.values():
        times = croniter(job.expression, world.clock.now())
        moments = [times.get_next(datetime) for _ in range(10)]
        assert all(after - before <= jobs_module.LONGEST_WAIT for before, after in pairwise(moments)), job.name


async def look_at_jobs(world: World) -> None:
    query = "{ jobs { name sentence schedule lastRun lastSuccess lagSeconds done error } }"
    jobs = {job["name"]: job for job in (await world.ask(await world.operator(), query))["jobs"]}
    assert set(jobs) == {"conversions", "credit", "expire", "fold", "holds", "mature", "notices", "seal", "tidy"}
    assert jobs["seal"]["done"] == 1
    assert jobs["seal"]["error"] is None
    assert all(job["sentence"] for job in jobs.values())
    metrics = (await world.http.get("/metrics")).text
    assert "gateway_database_up 1.0" in metrics
    assert 'gateway_job_done_total{job="seal"} 1.0' in metrics
    assert 'gateway_job_lag_seconds{job="seal"} 0.0' in metrics
    assert (await world.post("grocer", query)).status_code == 403


async def test_expiry_can_be_looked_at_before_and_happens_once(world: World) -> None:
    await world.record("30.00", occurredAt=(world.clock.now() - timedelta(days=190)).isoformat())
    await world.record("40.00")
    preview = """query($through: Date!) { expiryPreview(programme: "MER", through: $through, first: 10) {
      nodes { expiresOn points member } } }"""
    rows = (await world.ask(await world.operator(), preview, through="2027-12-31"))["expiryPreview"]["nodes"]
    assert [(row["expiresOn"], row["points"]) for row in rows] == [("2026-10-31", 30), ("2027-04-30", 40)]
    assert await run_job(world, "expire") == 0
    world.clock.set(world.clock.now() + timedelta(days=17))
    world.tokens.clear()
    lost = await asyncio.gather(*(run_job(world, "expire") for _ in range(3)))
    assert sum(lost) == 30
    assert await world.available() == 40
    rows = (await world.ask(await world.operator(), preview, through="2027-12-31"))["expiryPreview"]["nodes"]
    assert [row["points"] for row in rows] == [40]
    assert await world.broken() == []


async def test_members_are_told_once_that_points_run_out_soon(world: World) -> None:
    await world.record("30.00", occurredAt=(world.clock.now() - timedelta(days=190)).isoformat())
    await world.record("40.00")
    assert await run_job(world, "notices") == 1
    assert await run_job(world, "notices") == 0
    told = await world.sql("select cardinality(members) from outbox where kind = 'expiring'")
    assert [row[0] for row in told] == [1]


async def test_a_job_that_fails_says_what_of_and_the_next_run_clears_it(world: World) -> None:
    await world.sql("alter function post_expiry_notices rename to elsewhere")
    try:
        await run_job(world, "notices")
    except Exception:
        failed = await world.sql("select error from job_run where job = 'notices'")
    assert "post_expiry_notices" in failed[0]["error"]
    assert "SQLSTATE 42883" in failed[0]["error"]
    await world.sql("alter function elsewhere rename to post_expiry_notices")
    await run_job(world, "notices")
    assert (await world.sql("select error from job_run where job = 'notices'"))[0]["error"] is None


async def test_the_preview_of_expiry_counts_what_is_pending_until_then(world: World) -> None:
    await terms(world, pendingDays=200)
    await world.record("30.00")
    preview = """query($through: Date!) { expiryPreview(programme: "MER", through: $through, first: 10) { nodes { expiresOn points } } }"""
    rows = (await world.ask(await world.operator(), preview, through="2027-12-31"))["expiryPreview"]["nodes"]
    assert rows == [{"expiresOn": "2027-04-30", "points": 30}]


async def test_what_batches_noted_is_added_up_and_says_the_same_also_while_more_is_posted(world: World) -> None:
    for n in range(5):
        await world.record(f"{n}.00", who="grocer")
    sums = "select kind, partner_id, sum(points) as points, sum(transactions) as times, sum(amount_minor) as amount from delta group by 1, 2 order by 1, 2"
    before, noted = await world.sql(sums), len(await world.sql("select from delta"))
    await asyncio.gather(run_job(world, "fold"), run_job(world, "fold"))
    assert await world.sql(sums) == before
    assert len(await world.sql("select from delta")) == 1 < noted
    await asyncio.gather(*(world.record("1.00") for _ in range(10)), *(run_job(world, "fold") for _ in range(3)))
    assert await run_job(world, "fold") in (0, *range(2, 12))
    assert len(await world.sql("select from delta")) == 1
    assert await world.broken() == []


@pytest.mark.parametrize("fails", [False, True])
async def test_the_schedule_ends_when_it_is_told_to_also_where_that_is_taken_for_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """As pgqueuer did once when the gateway was interrupted in its first second: it went on without a database, for ever."""

    async def run(self: SchedulerManager) -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            if fails:
                raise RuntimeError("pool is closed") from None

    monkeypatch.setattr(SchedulerManager, "run", run)
    async with open_world(place, jobs=()) as world:
        jobs = Jobs(world.jobs._database, world.clock, list(world.jobs.jobs.values()), ("tidy",))
        running = asyncio.create_task(jobs.run())
        await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=5)
        assert done == {running}


async def test_what_a_job_fails_of_is_told_without_the_values_it_came_upon(world: World) -> None:
    await world.record("40.00", occurredAt=(world.clock.now() - timedelta(days=190)).isoformat())
    await speaking_of(world, "outbox", "ann@example.org")
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await run_job(world, "notices")
    ((error,),) = await world.sql("select error from job_run where job = 'notices'")
    assert re.fullmatch(r"InvalidTextRepresentationError \(SQLSTATE 22P02\), at gateway/database/\w+\.py:\d+", error)


async def test_what_has_ended_is_deleted_in_the_order_in_which_others_lock_it(world: World) -> None:
    """Sessions before codes: as the keys are replaced that leaked, which may not wait for a deadlock to be seen."""
    holder = await asyncpg.connect(world.dsn)
    await holder.execute("begin")
    await holder.execute("lock table console_session in exclusive mode")
    tidying = asyncio.create_task(run_job(world, "tidy"))
    await waits(world, 1)
    locked = "select relation::regclass::text from pg_locks where granted and pid <> pg_backend_pid() and relation = any($1::regclass[])"
    assert await world.sql(locked, ["authorization_code", "token_family"]) == []
    await holder.execute("rollback")
    await holder.close()
    await tidying
    assert await world.sql("select error from job_run where job = 'tidy' and error is not null") == []
