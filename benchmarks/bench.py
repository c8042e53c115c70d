"""`make bench`: the ledger and the API in turns with two yardsticks, medians of ROUNDS.

P: pgbench of the same binaries, TPC-B-like, prepared, 8 clients, scale 20, transactions per second.
S: a bare Strawberry mutation on the same uvicorn, requests per second.
A round measures the yardstick and then the figure, so that what slows the machine down meets both; the ratio is the median
of the rounds'. fsync and synchronous_commit are on throughout. Writes a table to standard output, progress to standard error.
"""

import asyncio
import datetime as dt
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import httpx
from access import measure_checks, measure_tokens
from api import HOUSEHOLDS, ME, PORT, Tills, measure_api
from ledger import measure_ledger
from yardsticks import ROUNDS, age, bare_mutation, pgbench, process, rows

from gateway.access import registration
from gateway.access.scopes import CEILING
from gateway.access.tokens import Subject, open_tokens
from gateway.clock import SystemClock
from gateway.coalition.catalogue import Coalition, read_coalition
from gateway.database import Database
from gateway.embedded import EmbeddedPostgres
from gateway.http.documents import register
from gateway.members.lookup import sql as members_sql
from gateway.migrate import migrate
from gateway.onboarding.contracts import NewContract
from gateway.onboarding.partners import NewPartner, onboard_from_files
from gateway.onboarding.programmes import NewCoalition, NewProgramme, create_coalition, create_programme
from gateway.settings import Settings, read_settings

PARTNERS = 8

APPS = 1_000


async def create_world(dsn: str) -> Coalition:
    database = Database(dsn, 2)
    await database.open()
    now = SystemClock().now()
    async with database.transaction() as tx:
        await create_coalition(tx, NewCoalition("Bench", "UTC", "USD", dt.date(2026, 1, 1)), dt.datetime.now(dt.UTC))
        await create_programme(tx, NewProgramme("MER", "Points", "ledger", expires_after_months=6))
        price, nothing = Decimal("0.01"), Decimal(0)
        contract = NewContract("MER", "USD", dt.date(2026, 1, 1), Fraction(1), price, price, nothing, nothing)
        partners = [NewPartner(f"partner{n}", f"Partner {n}", contracts=(contract,)) for n in range(PARTNERS)]
        await onboard_from_files(tx, partners, now)
        coalition = await read_coalition(tx)
    await database.close()
    return coalition


async def tokens_of(
    dsn: str, coalition: Coalition, settings: Settings
) -> tuple[Callable[[], dict[str, str]], Callable[[UUID], str]]:
    database = Database(dsn, 2)
    await database.open()
    clock = SystemClock()
    signer = await open_tokens(database, settings, clock)
    await database.close()

    def partners() -> dict[str, str]:
        return {
            p.code: signer.issue(Subject("partner", p.id), p.code, CEILING["partner"], clock.now())
            for p in coalition.partners.values()
        }

    def member(id: UUID) -> str:
        return signer.issue(Subject("member", id), registration.APP_CLIENT, CEILING["member"], clock.now())

    return partners, member


def enrol(tokens: dict[str, str]) -> None:
    """The same households at every partner, by card."""
    join = "mutation($i: [{kind}!]!) {{ {verb}(input: $i) {{ errors {{ code }} }} }}"
    for position, (_, token) in enumerate(sorted(tokens.items())):
        kind, verb = ("LinkMembershipInput", "linkMemberships") if position else ("EnrolMemberInput", "enrolMembers")
        for start in range(0, HOUSEHOLDS, 1_000):
            people = [{"externalId": f"m{n}", "card": f"C-{n}"} for n in range(start, start + 1_000)]
            said = httpx.post(
                f"http://127.0.0.1:{PORT}/graphql", timeout=60, trust_env=False,
                json={"query": join.format(kind=kind, verb=verb), "variables": {"i": people}},
                headers={"Authorization": f"Bearer {token}"},
            ).json()  # fmt: skip
            assert not any(each["errors"] for each in said["data"][verb]), said


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Path(folder) / "data")
        dsn = postgres.start()
        try:
            migrate(dsn)
            age(postgres)
            p = pgbench(postgres)
            coalition = asyncio.run(create_world(dsn))
            measure_ledger(dsn, p)
            issuer = f"http://127.0.0.1:{PORT}"
            environment = os.environ | {"DATABASE_URL": dsn, "GATEWAY_DATA_DIR": f"{folder}/gateway", "GATEWAY_PORT": str(PORT)}
            with process([sys.executable, "-m", "gateway", "serve"], environment, f"{issuer}/readyz") as gateway:
                renew, member = asyncio.run(tokens_of(dsn, coalition, read_settings(environment)))
                enrol(renew())
                some = asyncio.run(prepare_apps(dsn))
                measure_checks()
                measure_tokens(*asyncio.run(make_client(dsn, coalition)))
                with bare_mutation() as s:
                    measure_api(Tills(renew()), lambda: [member(id) for id in some], renew, s, p, gateway.pid)
        finally:
            postgres.stop()
    print(f"P = {statistics.median(p.found):,.0f}, S = {statistics.median(s.found):,.0f}; medians of {ROUNDS} turns;", end=" ")
    print(f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}.\n")
    print("| figure | must | aim | measured | ratio |\n|---|---|---|---|---|")
    for each in rows:
        print("| " + " | ".join(each) + " |")


async def make_client(dsn: str, coalition: Coalition) -> tuple[str, str]:
    """A client of one of the partners, with a secret."""
    database = Database(dsn, 2)
    await database.open()
    partner = next(iter(coalition.partners.values()))
    async with database.transaction() as tx:
        client = await registration.create_partner_client(tx, partner.id, partner.code, SystemClock().now())
    await database.close()
    return client


async def prepare_apps(dsn: str) -> list[UUID]:
    """Register what the members' app sends; answers the members whose apps will send it, each with a budget of its own."""
    database = Database(dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await register(tx, registration.APP_CLIENT, [ME], SystemClock().now())
        cards = await tx.all(members_sql.cards_by_number, numbers=[f"C-{n}" for n in range(1, APPS + 1)])
    await database.close()
    return [row["member_id"] for row in cards]


if __name__ == "__main__":
    main()
