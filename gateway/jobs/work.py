"""What the jobs do, each a run at a time; every one of them can be broken off, and finds the rest the next time."""

from datetime import datetime, timedelta
from uuid import UUID

import structlog

from gateway.access.clerk import sql as access_sql
from gateway.coalition.catalogue import Catalogue
from gateway.conversion.convert import Converter
from gateway.database import Database, PostedNothing, Stuck
from gateway.jobs.jobs import Job, sql
from gateway.ledger.expire import expire
from gateway.ledger.post import sql as ledger_sql
from gateway.ledger.seal import Signer, seal

AT_ONCE = 500
# Others' postings wait for these meanwhile.
WALLETS_AT_ONCE = 50
NOTICE_DAYS = 30

log = structlog.get_logger(__name__)


class Work:
    """Each method is a job's run, and answers how many things it did."""

    def __init__(self, database: Database, catalogue: Catalogue, converter: Converter, signer: Signer) -> None:
        self._database, self._catalogue, self._converter, self._signer = database, catalogue, converter, signer

    def jobs(self) -> list[Job]:
        """Every job of the gateway, by name."""
        return [
            Job("conversions", "Moves on exchanges that a crash or a silence left under way.", "* * * * * */5", self.convert),
            Job("credit", "Places members' debts, warns of credit that runs short.", "* * * * *", self.place_and_warn),
            Job("expire", "Expires points whose last day is over.", "* * * * * 30", self.expire_all),
            Job("fold", "Adds up what batches noted for settlement.", "* * * * * 15", self.fold),
            Job("holds", "Gives back what holds whose time is over set aside.", "* * * * * */5", self.run_out),
            Job("mature", "Makes pending points available whose day has come.", "* * * * * */10", self.mature),
            Job("notices", f"Announces points that run out within {NOTICE_DAYS} days.", "* * * * * 45", self.notice),
            Job("seal", "Seals what was posted into signed blocks.", "* * * * * */5", self.seal_all),
            Job("tidy", "Deletes codes, sessions and the like that have ended.", "* * * * *", self.tidy),
        ]

    async def mature(self, now: datetime) -> int:
        today = (await self._catalogue.current()).day_of(now)
        matured = 0
        while True:
            row = await self._database.post(ledger_sql.post_maturities, at=now, today=today, most=AT_ONCE)
            if row["purchases"] == 0:
                return matured
            matured += row["purchases"]

    async def run_out(self, now: datetime) -> int:
        today = (await self._catalogue.current()).day_of(now)
        ended = 0
        while True:
            (count,) = await self._database.post(
                ledger_sql.post_run_out_holds, at=now, today=today, month=today.replace(day=1), most=AT_ONCE
            )
            if count == 0:
                return ended
            ended += count

    async def expire_all(self, now: datetime) -> int:
        coalition = await self._catalogue.current()
        today = coalition.day_of(now)
        points = 0
        for programme in coalition.programmes.values():
            if programme.custody == "ledger" and programme.expires_after_months is not None:
                through = today - timedelta(days=1)
                async for round_ in expire(self._database, programme.id, through, now, today.replace(day=1), now):
                    points += round_.points
        return points

    async def notice(self, now: datetime) -> int:
        coalition = await self._catalogue.current()
        by_day = coalition.day_of(now) + timedelta(days=NOTICE_DAYS)
        told = 0
        for programme in coalition.programmes.values():
            while programme.custody == "ledger" and programme.expires_after_months is not None:
                (count,) = await self._database.post(
                    ledger_sql.post_expiry_notices, at=now, programme=programme.id, by_day=by_day, most=AT_ONCE
                )
                told += count
                if count == 0:
                    break
        return told

    async def fold(self, now: datetime) -> int:
        (folded,) = await self._database.post(ledger_sql.fold_deltas)
        return int(folded)

    async def seal_all(self, now: datetime) -> int:
        sealed = 0
        while count := await seal(self._database, self._signer, now):
            sealed += count
        return sealed

    async def convert(self, now: datetime) -> int:
        return await self._converter.resume()

    async def tidy(self, now: datetime) -> int:
        return int(await self._database.decided(lambda tx: tx.value(access_sql.forget_ended, now=now)))

    async def _deal_moved_debts(self) -> None:
        async with self._database.reading() as tx:
            partners = [row["partner_id"] for row in await tx.all(sql.partners_of_moved_debts)]
        for partner in partners:
            try:
                await self._database.post(sql.deal_moved_debts, partner=partner)
            except (Stuck, PostedNothing):
                log.info("a partner's credit is dealt later; somebody is at work on it", partner_id=str(partner))

    async def place_and_warn(self, now: datetime) -> int:
        placed, last, wallets = 0, (-1, UUID(int=0), UUID(int=0)), WALLETS_AT_ONCE
        while wallets == WALLETS_AT_ONCE:
            bucket, member, programme = last
            given = {"after_bucket": bucket, "after_member": member, "after_programme": programme}
            row = await self._database.post(sql.place_debts, **given, most=WALLETS_AT_ONCE)
            placed, wallets = placed + int(row["changed"]), int(row["wallets"])
            last = row["last_bucket"], row["last_member"], row["last_programme"]
        await self._deal_moved_debts()
        async with self._database.reading() as tx:
            rows = [row for row in await tx.all(sql.warn_of_credit, at=now) if row["short"]]
        for row in rows:
            used = str(row["used"])
            log.warning("a partner's credit runs short", partner=row["code"], limit_minor=row["limit_minor"], used_minor=used)
        return placed + len(rows)
