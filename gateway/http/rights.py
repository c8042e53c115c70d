"""The table of rights: what each kind of caller can reach at most, kept in docs/rights.md so that a change is seen."""

from collections import defaultdict

from graphql import GraphQLSchema

from gateway.access.scopes import CEILING, DELEGABLE, ROLES
from gateway.http.guard import PUBLIC, Need, rights

KINDS = {"public": frozenset[str](), "member": CEILING["member"], "partner for a member": DELEGABLE, **CEILING}
"""What each kind of caller may hold at most."""
HEAD = (
    """# Rights

What each kind of caller can reach at most: with every scope that its kind may hold, before consent, the client's own
allowance and the checks of each object narrow it. What is public needs a token and no scope. An operator reaches what its
roles open, and `admin` everything that operators can. Made by `make schema` and held by a test; do not edit it by hand.

| field | """
    + " | ".join(KINDS)
    + """ | roles | needs any of |
|---|"""
    + "---|" * (len(KINDS) + 2)
)


def opens(need: Need, scopes: frozenset[str]) -> bool:
    """Whether somebody with these scopes has what a field needs."""
    return need == PUBLIC or any(alternative <= scopes for alternative in need)


def rights_table(schema: GraphQLSchema) -> str:
    """The table, as Markdown; fields of one type that need the same stand together."""
    together: dict[tuple[str, Need], list[str]] = defaultdict(list)
    for (type_name, field), need in sorted(rights(schema).items()):
        together[type_name, need].append(field)
    lines = [HEAD]
    for (type_name, need), fields in sorted(together.items(), key=lambda item: (item[0][0], item[1])):
        marks = " | ".join("yes" if opens(need, most) else "" for most in KINDS.values())
        opened = [role for role, held in ROLES.items() if role != "admin" and opens(need, held)]
        roles = "every" if need == PUBLIC else ", ".join(opened)
        scopes = ", ".join(" and ".join(f"`{scope}`" for scope in sorted(each)) for each in sorted(need, key=sorted))
        shown = ", ".join(f"`{field}`" for field in fields)
        lines.append(f"| {type_name}: {shown} | {marks} | {roles} | {scopes} |")
    return "\n".join(lines) + "\n"
