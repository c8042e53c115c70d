"""Closing a month: lines to the cent, positions that sum to zero, files that are the same every time."""

import hashlib
import json
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.points import round_half_even_minor
from gateway.settlement.close import close_period
from gateway.settlement.files import COLUMNS
from tests.coalition.test_operators import ONBOARD, PUBLISH
from tests.points import ENROL, mint
from tests.world import World

CLOSE = "mutation($m: YearMonth!) { closePeriod(input: {month: $m, early: true}) { period { state } errors { code message } } }"
PERIOD = """query($m: YearMonth!) { period(month: $m) { state
  positions { party { code } net { amount } }
  standings { programme { code } outstanding debt expired }
  statements { partner { code } net { amount } digest totals { purchases issued returned redeemed }
               lines { kind points gross { amount } debtor { code } creditor { code } } } } }"""


async def close(world: World, month: str) -> dict:
    return (await world.ask(await world.operator(), CLOSE, m=month))["closePeriod"]


async def close_through(world: World, last: int) -> None:
    for n in range(1, last + 1):
        assert (await close(world, f"2026-{n:02d}"))["errors"] == []


def files(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


async def test_a_month_is_closed_with_all_partners_it_had_whatever_the_process_knew(world: World, tmp_path: Path) -> None:
    async with Database(world.dsn, 2) as database:
        async with database.reading() as tx:
            known = await read_coalition(tx)
        operator = await world.operator()
        young = (await world.ask(operator, ONBOARD, i={"code": "young", "name": "Young"}))["onboardPartner"]["partner"]["id"]
        terms = {"programme": "MER", "currency": "USD", "validFrom": "2026-10-01", "earnRate": "1", "issuePrice": "0.01"}
        await world.ask(operator, PUBLISH, i={"partner": young, **terms})
        partner_id = (await world.sql("select partner_id from partner where code = 'young'"))[0][0]
        world.tokens["young"] = await mint(world, "partner", partner_id)
        await world.ask("young", ENROL, i={"externalId": "yan"})
        assert (await world.record("500.00", who="young", member={"externalId": "yan"}))["errors"] == []
        await close_through(world, 9)
        await close_period(database, known, tmp_path, date(2026, 10, 1), world.clock.now(), early=True)
    period = (await world.ask(operator, PERIOD, m="2026-10"))["period"]
    assert {s["partner"]["code"]: s["totals"]["issued"] for s in period["statements"]}["young"] == 500
    assert await world.broken() == []


async def test_a_month_settles_to_the_cent_and_positions_sum_to_zero(world: World) -> None:
    await world.record("1234.00", receipt="r")
    await world.record("100.00")
    await world.give_back("r", total={"amount": "34.00", "currency": "USD"})
    await world.record("333.00", who="fuel")
    await world.redeem(1000, who="fuel")
    await close_through(world, 10)
    period = (await world.ask(await world.operator(), PERIOD, m="2026-10"))["period"]
    assert period["state"] == "CLOSED"
    lines = {
        s["partner"]["code"]: [(li["kind"], li["points"], li["gross"]["amount"]) for li in s["lines"]]
        for s in period["statements"]
    }
    assert lines["grocer"] == [("ISSUE", 1334, "13.34"), ("RETURN", 34, "0.34"), ("FEE", 1300, "0.20")]
    # 166 points x 0.0095 = 1.577; its fee 0.03154; 1000 points x 0.0078 = 7.80
    assert lines["fuel"] == [("ISSUE", 166, "1.58"), ("FEE", 166, "0.03"), ("REDEEM", 1000, "7.80")]
    nets = {p["party"]["code"]: Decimal(p["net"]["amount"]) for p in period["positions"]}
    assert nets == {"grocer": Decimal("13.20"), "fuel": Decimal("-6.19"), "airline": Decimal(0), "coalition": Decimal("-7.01")}
    assert sum(nets.values()) == 0
    standings = {s["programme"]["code"]: (s["outstanding"], s["debt"]) for s in period["standings"]}
    assert standings["MER"] == (466, 0)
    assert await world.broken() == []


async def test_closing_twice_gives_the_same_bytes_and_the_manifest_their_digests(world: World) -> None:
    await world.record("50.00")
    await close_through(world, 10)
    folder = world.data_dir / "settlement" / "2026-10"
    before = files(folder)
    for path in folder.iterdir():
        path.unlink()
    await close(world, "2026-10")
    assert files(folder) == before
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {name: f["sha256"] for name, f in manifest["files"].items()} == {
        n: d for n, d in before.items() if n != "manifest.json"
    }
    assert (folder / "grocer.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert json.loads((folder / "grocer.json").read_text())["net_owed_by_partner"] == "0.51"


async def test_a_month_whose_files_cannot_be_written_is_closed_and_gets_them_when_it_is_closed_again(world: World) -> None:
    await world.record("50.00")
    await close_through(world, 9)
    in_the_way = world.data_dir / "settlement" / "2026-10"
    in_the_way.touch()
    refused = await close(world, "2026-10")
    assert (refused["period"], [e["code"] for e in refused["errors"]]) == (None, ["FILES_NOT_WRITTEN"])
    assert "2026-10 is closed" in refused["errors"][0]["message"]
    in_the_way.unlink()
    assert await close(world, "2026-10") == {"period": {"state": "CLOSED"}, "errors": []}
    assert json.loads((in_the_way / "grocer.json").read_text())["net_owed_by_partner"] == "0.51"


async def test_months_close_in_order_and_not_before_they_begin(world: World) -> None:
    refused = await close(world, "2026-05")
    assert [e["code"] for e in refused["errors"]] == ["STATE_CONFLICT"]
    assert "2026-01" in refused["errors"][0]["message"]
    assert [e["code"] for e in (await close(world, "2026-11"))["errors"]] == ["STATE_CONFLICT"]
    assert [e["code"] for e in (await close(world, "2025-12"))["errors"]] == ["STATE_CONFLICT"]
    assert {row[0] for row in await world.sql("select state from period")} <= {"open"}


async def test_a_partner_sees_its_own_statement_alone_and_no_positions(world: World) -> None:
    await world.record("50.00")
    await close_through(world, 10)
    mine = 'query { period(month: "2026-10") { statements { partner { code } } } }'
    seen = (await world.ask("grocer", mine))["period"]["statements"]
    assert seen == [{"partner": {"code": "grocer"}}]
    refused = await world.post("grocer", PERIOD, m="2026-10")
    assert refused.status_code == 403
    assert "data" not in refused.json()


async def test_sums_that_readers_of_json_would_round_are_told_digit_by_digit(world: World) -> None:
    await world.record("50.00")
    await close_through(world, 10)
    for change, points in (
        ("statement set issued = $1 where issued = 50", 2**53 - 1), ("statement set redeemed = $1", 2**53),
        ("statement_line set points = $1", 2**64), ("period_programme set outstanding = $1, debt = -$1", 10**30),
    ):  # fmt: skip
        await world.sql(f"update {change.replace('$1', str(points))}")
    query = """query($m: YearMonth!) { period(month: $m) {
      standings { outstanding debt } statements { totals { issued redeemed } lines { points } } } }"""
    operator = await world.operator()
    for asked in (query, query.replace("lines", "lines @include(if: true)")):  # by our own completion, and by graphql-core's
        period = (await world.ask(operator, asked, m="2026-10"))["period"]
        assert period["standings"][0] == {"outstanding": str(10**30), "debt": str(-(10**30))}
        (grocer,) = [each for each in period["statements"] if each["lines"]]
        assert grocer["totals"] == {"issued": 2**53 - 1, "redeemed": str(2**53)}
        assert {line["points"] for line in grocer["lines"]} == {str(2**64)}


async def test_the_month_that_runs_is_closed_only_if_that_is_asked_for(world: World) -> None:
    await world.record("10.00")
    await close_through(world, 9)
    careful = CLOSE.replace(", early: true", "")
    refused = (await world.ask(await world.operator(), careful, m="2026-10"))["closePeriod"]
    assert [error["code"] for error in refused["errors"]] == ["STATE_CONFLICT"]
    assert (await world.record("10.00"))["earning"]["period"] == "2026-10"
    assert (await close(world, "2026-10"))["errors"] == []
    again = (await world.ask(await world.operator(), careful, m="2026-10"))["closePeriod"]
    assert (again["errors"], again["period"]["state"]) == ([], "CLOSED")
    assert (await world.record("10.00"))["earning"]["period"] == "2026-11"


async def test_a_partner_cannot_close_a_month(world: World) -> None:
    refused = await world.post("grocer", CLOSE, m="2026-01")
    assert refused.status_code == 403
    assert await world.sql("select month from period") == []


@given(st.integers(0, 10**15), st.integers(1, 10**6))
def test_rounding_is_half_even_and_never_more_than_half_a_cent_off(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    rounded = round_half_even_minor(exact)
    assert abs(rounded - exact * 100) <= Fraction(1, 2)
    if abs(rounded - exact * 100) == Fraction(1, 2):
        assert rounded % 2 == 0
