"""What each client may ask for: a budget of cost that fills up again, shared by all processes (a leaky bucket).

A process takes some of a budget in advance and spends that without asking the database, so that a request costs no round
trip; what it has taken and not spent is at most CHUNK of the whole.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Any

from graphql import GraphQLError

from gateway.access.caller import Caller
from gateway.database import Database
from gateway.http.errors import DocumentRefused
from gateway.http.refusing import RequestRefused
from gateway.statements import load_queries
from gateway.turns import OneAtATime

sql = load_queries(__file__, "budget.sql")

CHUNK = 0.05
HOLDERS_MAX = 10_000
SITE_BITS = 48


@dataclass(frozen=True, slots=True)
class Plan:
    """A budget of `maximum` points of cost, which fills up by `restore_rate` a second."""

    maximum: int
    restore_rate: int


# What one address may do before it has said who it is: log in, and push requests of apps that have no secret.
STRANGERS = Plan(300, 5)
# Authorization requests that clients push: what is pushed is kept for minutes.
PUSHES = Plan(1_000, 100)
PLANS = {
    "member": Plan(50_000, 2_000),
    "operator": Plan(500_000, 20_000),
    "partner": Plan(4_000_000, 200_000),
}


@dataclass(slots=True)
class _Taken:
    """What this process has of somebody's budget, and what was left of it when it took that."""

    here: float
    left: float
    at: float


class Budgets:
    """Charges callers for what they ask."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._taken: OrderedDict[str, _Taken] = OrderedDict()
        # Apart, so that however many strangers wait, no caller that is known is told that too many do.
        self._callers, self._strangers = OneAtATime(), OneAtATime()

    async def charge(self, caller: Caller, cost: int) -> dict[str, Any]:
        """Take an operation's cost; answers how it stands, in the shape of Shopify's `extensions.cost`.

        Raises RequestRefused (429) while there is too little, DocumentRefused where it never is enough,
        DatabaseAway, Busy, Stuck.
        """
        plan, holder = plan_of(caller), _holder(caller)
        if cost > plan.maximum:
            told = f"The operation costs {cost}, more than the whole budget of {plan.maximum}. Ask for fewer items at once."
            raise DocumentRefused([GraphQLError(told, extensions={"code": "COST_TOO_HIGH"})])
        taken, seconds = await self._spend(holder, plan, cost, self._callers)
        if seconds:
            left = f"{int(taken.here + taken.left)} of {plan.maximum} are left"
            raise RequestRefused(
                429,
                "THROTTLED",
                f"This operation costs {cost}, and {left}; {plan.restore_rate} come back a second: try again in {seconds} s.",
                {"Retry-After": str(seconds)},
                {"cost": _shown(plan, taken, cost, 0)},
            )
        return _shown(plan, taken, cost, cost)

    async def knock(self, address: str) -> int:
        """Take one of what an address may do before it has said who it is; answers in how many seconds it may come back,
        0 if it may go on now. Raises DatabaseAway."""
        _, seconds = await self._spend(f"address {network_of(address)}", STRANGERS, 1, self._strangers)
        return seconds

    async def push(self, address: str) -> int:
        """Take one of the requests that clients at an address push; answers as `knock` does. Raises DatabaseAway."""
        _, seconds = await self._spend(f"pushes {network_of(address)}", PUSHES, 1, self._strangers)
        return seconds

    async def _spend(self, holder: str, plan: Plan, cost: int, line: OneAtATime) -> tuple[_Taken, int]:
        """Take a cost, waiting in `line` where the database has to be asked; answers how the budget stands, and in how many
        seconds there is enough, 0 where it was taken."""
        taken = self._taken.get(holder)
        if taken is None or taken.here < cost:
            async with line(holder):
                taken = self._taken.get(holder)
                if taken is None or taken.here < cost:
                    taken = await self._take(holder, plan, cost, taken or _Taken(0.0, 0.0, 0.0))
        if taken.here < cost:
            return taken, max(math.ceil((cost - taken.here - taken.left) / plan.restore_rate), 1)
        taken.here -= cost
        return taken, 0

    async def _take(self, holder: str, plan: Plan, cost: int, before: _Taken) -> _Taken:
        # Nobody spends meanwhile what is counted as being there still.
        here, before.here = before.here, 0.0
        try:
            async with self._database.reading() as tx:
                row = await tx.one(
                    sql.take_budget,
                    holder=holder,
                    most=float(plan.maximum),
                    rate=float(plan.restore_rate),
                    needed=cost - here,
                    wanted=plan.maximum * CHUNK,
                )
        except BaseException:
            before.here = here
            raise
        assert row is not None
        self._taken[holder] = taken = _Taken(here + row["taken"], row["left_over"], monotonic())
        self._taken.move_to_end(holder)
        if len(self._taken) > HOLDERS_MAX:
            self._taken.popitem(last=False)
        return taken


def plan_of(caller: Caller) -> Plan:
    """A partner that acts for a member spends its own budget."""
    return PLANS["partner" if caller.acting_partner_id is not None else caller.kind]


def _holder(caller: Caller) -> str:
    if (caller.kind == "partner" or caller.acting_partner_id is not None) and not caller.outside:
        return f"client {caller.client_id}"
    return f"{caller.kind} {caller.subject_id}"


def network_of(address: str, bits: int = 64) -> str:
    """The address, or the bits of an IPv6 address that one network has to itself, 64, or one site, SITE_BITS (RFC 6177)."""
    try:
        given = ip_address(address)
    except ValueError:
        return address
    if isinstance(given, IPv6Address):
        # A socket for both families shows callers of IPv4 as ::ffff:198.51.100.7.
        return str(given.ipv4_mapped or IPv6Network((given, bits), strict=False))
    return str(given)


def _shown(plan: Plan, taken: _Taken, requested: int, actual: int) -> dict[str, Any]:
    left = taken.left + plan.restore_rate * (monotonic() - taken.at)
    return {
        "requestedQueryCost": requested,
        "actualQueryCost": actual,
        "throttleStatus": {
            "maximumAvailable": plan.maximum,
            "currentlyAvailable": int(min(plan.maximum, taken.here + left)),
            "restoreRate": plan.restore_rate,
        },
    }
