"""Reads a settled month back from the API: for the tables that people see, and for the JSON report."""

from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PERIOD = """
query($month: YearMonth!) {
  period(month: $month) {
    state
    statements {
      partner { code name }
      totals {
        purchases amount { amount } issued returns returned redemptions redeemed conversions convertedOut convertedIn
      }
      lines { kind gross { amount } debtor { code } }
      net { amount }
    }
    positions { party { code } net { amount } }
    standings { programme { code } outstanding debt expired }
  }
}
"""
KINDS = {"issue": "ISSUE", "return": "RETURN", "fee": "FEE", "redeem": "REDEEM", "conversion": "CONVERSION"}

Ask = Callable[..., Awaitable[dict[str, Any]]]


async def read_month(operator: Ask, month: date) -> dict[str, Any] | None:
    """A month's report; None while the month is not settled.

    Charges are positive; of a fee, what the coalition owes is negative. `coalition_net` is what partners owe the
    coalition in sum (negative: it owes them).
    """
    period = (await operator(PERIOD, month=f"{month:%Y-%m}"))["period"]
    if not period["statements"]:
        return None
    standing = {s["programme"]["code"]: s for s in period["standings"]}
    coalition = next(p for p in period["positions"] if p["party"]["code"] == "coalition")
    return {
        "partners": {s["partner"]["code"]: _partner(s) for s in period["statements"]},
        "coalition_net": str(-Decimal(coalition["net"]["amount"])),
        "expired": standing["MER"]["expired"],
        "outstanding": standing["MER"]["outstanding"],
        "debt": standing["MER"]["debt"],
        "sky_outstanding": standing["SKY"]["outstanding"],
    }


def _partner(statement: dict[str, Any]) -> dict[str, Any]:
    totals = statement["totals"]
    charges = {name: Decimal("0.00") for name in KINDS}
    for line in statement["lines"]:
        name = line["kind"].lower()
        owed_by_coalition = name == "fee" and line["debtor"]["code"] == "coalition"
        charges[name] += -Decimal(line["gross"]["amount"]) if owed_by_coalition else Decimal(line["gross"]["amount"])
    return {
        "purchases": totals["purchases"],
        "amount_cents": int(Decimal(totals["amount"]["amount"]).scaleb(2)),
        "issued": totals["issued"],
        "returns": totals["returns"],
        "returned": totals["returned"],
        "redemptions": totals["redemptions"],
        "redeemed": totals["redeemed"],
        "conversions": totals["conversions"],
        "converted_out": totals["convertedOut"],
        "converted_in": totals["convertedIn"],
        **{name: str(amount) for name, amount in charges.items()},
        "net_owed_by_partner": statement["net"]["amount"],
    }


def show_month(out: Console, month: date, report: dict[str, Any]) -> None:
    """A month as a table: points by partner, and who owes what."""
    table = Table(
        title=f"{month:%B %Y}", caption=_caption(report), title_style="bold", show_footer=True, box=SIMPLE_HEAD,
        padding=0, pad_edge=False,  # so that eight columns of figures fit into 80 characters
    )  # fmt: skip
    columns = ("issued", "returned", "redeemed", "converted_out")
    table.add_column("partner", footer="coalition", no_wrap=True, min_width=max(map(len, report["partners"])))
    for name in columns:
        total = sum(p[name] for p in report["partners"].values())
        table.add_column(name.replace("converted_out", "converted"), justify="right", footer=f"{total:,}")
    table.add_column("expired", justify="right", footer=f"{report['expired']:,}")
    # Positions sum to zero: what the partners owe net is what the coalition is owed.
    table.add_column("owes net, USD", justify="right", footer=f"{-Decimal(report['coalition_net']):,.2f}", min_width=11)
    for code, partner in report["partners"].items():
        points = [f"{partner[name]:,}" if partner[name] else "[dim]-[/]" for name in columns]
        table.add_row(code, *points, "", f"{Decimal(partner['net_owed_by_partner']):,.2f}")
    out.print(table)


def _caption(report: dict[str, Any]) -> str:
    return f"members hold {report['outstanding']:,} MER and {report['sky_outstanding']:,} SKY, and owe {report['debt']:,} MER"
