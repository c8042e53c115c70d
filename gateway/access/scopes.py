"""The scope catalogue, and what each kind of caller may hold at most."""

from collections.abc import Iterable

PARTNER = {
    "partner": "read the partner's own record and its memberships",
    "members:lookup": "find a member by membership, external id or card",
    "members:enrol": "enrol members and link memberships",
    "points:earn": "post purchases",
    "points:reverse": "post returns",
    "points:burn": "redeem points at the partner",
    "points:convert": "quote and convert points of the partner's members",
    "contracts:read": "read the partner's contracts",
    "settlement:read": "read the partner's statements",
}
MEMBER = {
    "profile:read": "read your memberships with your number at each partner, your cards, and what you did at every partner",
    "profile:write": "change what is known of you as a person",
    "consents:manage": "allow partners to act for you, and end that",
    "balance:read": "read your wallets, what happened to them and when, and your balances in partners' own systems",
    "points:convert": "quote and convert your points",
    "points:transfer": "give your points to other members",
}
OPERATOR = {
    "coalition:read": "read partners, periods and positions",
    "contracts:read": "read every contract",
    "partners:manage": "onboard partners, publish contracts",
    "rates:publish": "publish conversion rates",
    "programmes:manage": "create programmes; set when points become available, spending limits and partners' credit",
    "ledger:adjust": "ask for an adjustment of a member's points",
    "ledger:approve": "decide on another operator's adjustment",
    "members:support": "read a member by id, card, e-mail or phone",
    "points:expire": "run the expiry of points",
    "settlement:read": "read every statement",
    "settlement:close": "close a period",
    "audit:read": "read the audit log, run the integrity checks",
}
ROLES = {
    "admin": frozenset(OPERATOR),
    "onboarding": frozenset({"coalition:read", "contracts:read", "partners:manage", "rates:publish"}),
    "support": frozenset({"coalition:read", "members:support", "ledger:adjust"}),
    "approver": frozenset({"coalition:read", "members:support", "ledger:approve"}),
    "finance": frozenset({"coalition:read", "contracts:read", "settlement:read", "settlement:close", "points:expire"}),
    "auditor": frozenset({"coalition:read", "contracts:read", "settlement:read", "members:support", "audit:read"}),
}
CATALOGUE = {**PARTNER, **MEMBER, **OPERATOR}


def of_roles(roles: Iterable[str]) -> frozenset[str]:
    """What an operator with these roles may hold."""
    return frozenset().union(*(ROLES[role] for role in roles))


DELEGABLE = frozenset(MEMBER) - {"profile:write", "consents:manage"}
"""What a partner that acts for a member may hold, where the member agreed to it; who it is stays the member's to say."""

CEILING = {"partner": frozenset(PARTNER), "member": frozenset(MEMBER), "operator": frozenset(OPERATOR)}
