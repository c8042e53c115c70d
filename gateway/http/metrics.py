"""Metrics for Prometheus: jobs, queues, the lag of sealing and of what was revoked. They hold nothing of anybody."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.revocations import Revocations
from gateway.clock import Clock
from gateway.database import Database, DatabaseAway, Stuck
from gateway.http.health import AtOnce
from gateway.jobs.jobs import runs_in
from gateway.ledger.post import Ledger
from gateway.ledger.post import sql as ledger_sql


class Metrics:
    """`/metrics`: read afresh for a scrape, so that nothing is counted twice by several processes."""

    def __init__(self, database: Database, ledger: Ledger, revocations: Revocations, clock: Clock) -> None:
        self._database, self._ledger, self._clock = database, ledger, clock
        self._revocations = revocations
        self._at_once = AtOnce(self._written)

    async def scrape(self, request: Request) -> Response:
        return Response(await self._at_once.get(), media_type=CONTENT_TYPE_LATEST)

    async def _written(self) -> bytes:
        registry = CollectorRegistry()
        up = Gauge("gateway_database_up", "Whether the database answers.", registry=registry)
        waiting = Gauge("gateway_items_waiting", "Items that wait to be posted by this process.", registry=registry)
        waiting.set(self._ledger.waiting)
        age = Gauge("gateway_revocations_age_seconds", "How long ago this process read what was revoked.", registry=registry)
        age.set(self._revocations.age_seconds)
        try:
            await self._read(registry)
            up.set(1)
        except (DatabaseAway, Stuck):
            up.set(0)
        return generate_latest(registry)

    async def _read(self, registry: CollectorRegistry) -> None:
        last = Gauge("gateway_job_last_success_timestamp_seconds", "When a job last went well.", ["job"], registry=registry)
        lag = Gauge("gateway_job_lag_seconds", "How long ago a job last went well.", ["job"], registry=registry)
        done = Gauge("gateway_job_done_total", "How many things a job has done in all.", ["job"], registry=registry)
        failing = Gauge("gateway_job_failing", "Whether the last run of a job failed.", ["job"], registry=registry)
        unsealed = Gauge("gateway_unsealed_batches", "Batches that wait to be sealed.", registry=registry)
        async with self._database.reading() as tx:
            runs, row = await runs_in(tx), await tx.one(ledger_sql.lag_of_sealing)
        for name, run in runs.items():
            done.labels(name).set(run.done)
            failing.labels(name).set(run.error is not None)
            if run.succeeded_at is not None:
                last.labels(name).set(run.succeeded_at.timestamp())
                lag.labels(name).set((self._clock.now() - run.succeeded_at).total_seconds())
        unsealed.set(row["batches"] if row else 0)
