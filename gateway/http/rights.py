"""The table of rights: what each kind of caller can reach at most, kept in docs/rights.md so that a change is seen."""

from collections import defaultdict

from graphql import GraphQLSchema

from gateway.access.scopes import CEILING
from gateway.http.guard import PUBLIC, Need, rights

KINDS = ("public", "member", "partner", "operator")
HEAD = (
    """# Rights

What each kind of caller can reach at most: with every scope that its kind may hold, before consent, the client's own
allowance and the checks of each object narrow it. What is public needs a token and
no scope. Made by `make schema` and held by a test; do not edit it by hand.

| field | """
    + " | ".join(KINDS)
    + """ | needs any of |
|---|"""
    + "---|" * (len(KINDS) + 1)
)


def opens(need: Need, kind: str) -> bool:
    """Whether a caller of this kind can hold what a field needs."""
    return need == PUBLIC or any(alternative <= CEILING.get(kind, frozenset()) for alternative in need)


def rights_table(schema: GraphQLSchema) -> str:
    """The table, as Markdown; fields of one type that need the same stand together."""
    together: dict[tuple[str, Need], list[str]] = defaultdict(list)
    for (type_name, field), need in sorted(rights(schema).items()):
        together[type_name, need].append(field)
    lines = [HEAD]
    for (type_name, need), fields in sorted(together.items(), key=lambda item: (item[0][0], item[1])):
        marks = " | ".join("yes" if opens(need, kind) else "" for kind in KINDS)
        scopes = ", ".join(" and ".join(f"`{scope}`" for scope in sorted(each)) for each in sorted(need, key=sorted))
        shown = ", ".join(f"`{field}`" for field in fields)
        lines.append(f"| {type_name}: {shown} | {marks} | {scopes} |")
    return "\n".join(lines) + "\n"
