"""The coalition's time zone is the database's: both say the same day of every moment, whatever Python knows of it."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from gateway.coalition.zone import Zone, read_zone
from gateway.database import Database
from tests.house.test_embedded import Gateway
from tests.world import World

ZONES = [
    "UTC", "America/New_York", "Europe/Vienna", "America/Vancouver", "Africa/Casablanca", "Asia/Gaza", "Australia/Lord_Howe",
    "Asia/Kathmandu", "Pacific/Apia", "Pacific/Kiritimati", "Africa/Monrovia", "America/Recife",
]  # fmt: skip


@pytest.mark.parametrize("name", ZONES)
async def test_a_day_is_the_databases_before_and_after_each_change_and_each_midnight(dsn: str, name: str) -> None:
    database = Database(dsn, 2)
    await database.open()
    async with database.reading() as tx:
        zone = await read_zone(tx, name)
    await database.close()
    assert (len(zone.changes) > 0) == (name != "UTC")
    connection = await asyncpg.connect(dsn)
    midnights = "select (d::timestamp at time zone $1) from generate_series('1970-01-02'::date, '2099-12-01'::date, '17 days') d"
    turns = [*zone.changes, *(row[0] for row in await connection.fetch(midnights, name))]
    near = (timedelta(), timedelta(microseconds=1), timedelta(seconds=1), timedelta(hours=1), timedelta(hours=3))
    moments = [turn + sign * each for turn in turns for each in near for sign in (-1, 1)]
    days = await connection.fetch("select (at at time zone $1)::date from unnest($2::timestamptz[]) with ordinality m (at, n) order by n", name, moments)
    await connection.close()
    assert [zone.day_of(moment) for moment in moments] == [row[0] for row in days]


async def test_what_happens_at_the_turn_of_a_month_is_booked_as_the_database_checks_it_where_laws_have_changed(world: World) -> None:
    await world.sql("update coalition set timezone = 'America/Vancouver'")
    turn = (await world.sql("select '2026-12-01'::timestamp at time zone 'America/Vancouver'"))[0][0]
    world.clock.set(turn + timedelta(hours=3))
    world.tokens.clear()
    for hours in (-1, -0.01, 0, 0.5, 1, 2):
        assert (await world.record("5.00", occurredAt=(turn + timedelta(hours=hours)).isoformat()))["errors"] == []
    months = await world.sql("select period, count(*) from transaction group by 1 order by 1")
    assert [(f"{month:%Y-%m}", count) for month, count in months] == [("2026-11", 2), ("2026-12", 4)]
    assert await world.broken() == []


@pytest.mark.parametrize("name", ["localtime", "posixrules", "Europe/Wien", "CEST", "+02:00", ""])
async def test_a_zone_that_the_database_does_not_know_by_its_name_is_none(world: World, name: str) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    ran = gateway.run("coalition", "create", "--name", "Ours", "--timezone", name)
    assert (ran.returncode, "is not a time zone such as" in ran.stderr) == (1, True)


def test_the_days_of_moments_at_the_ends_are_those_of_the_first_and_the_last_offset() -> None:
    zone = Zone((datetime(2000, 1, 1, tzinfo=UTC),), (timedelta(hours=-5), timedelta(hours=5)))
    for at, day in (("1960-01-01T04:59:59+00:00", "1959-12-31"), ("2150-01-01T19:00:00+00:00", "2150-01-02")):
        assert zone.day_of(datetime.fromisoformat(at)).isoformat() == day
