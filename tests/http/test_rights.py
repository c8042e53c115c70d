"""What each kind of caller can reach: the whole schema, walked with a token of every kind, against the table in docs/."""

from pathlib import Path

from graphql import GraphQLObjectType, GraphQLSchema, build_schema, get_named_type, is_abstract_type, is_leaf_type, parse
from graphql.type import GraphQLField

from gateway.access.scopes import DELEGABLE, ROLES
from gateway.http.guard import PUBLIC, Need, missing, needs_of, rights
from gateway.http.rights import KINDS, opens, rights_table
from tests.access.consenting import agree, exchange
from tests.points import ann_hands_over, ann_logs_in
from tests.world import World, engine

ROOT = Path(__file__).parent.parent.parent


def test_the_table_of_rights_is_up_to_date() -> None:
    kept = (ROOT / "docs/rights.md").read_text()
    assert kept == rights_table(engine()._schema), "run make schema, and look at what changed"


def arguments(field: GraphQLField, variables: dict[str, str]) -> str:
    """Every required argument as a variable, which is declared and never given: nothing can run."""
    given = []
    for name, argument in field.args.items():
        if str(argument.type).endswith("!") and str(argument.default_value) == "Undefined":
            variables[f"v{len(variables)}"] = str(argument.type)
            given.append(f"{name}: $v{len(variables) - 1}")
    return f"({', '.join(given)})" if given else ""


def documents(schema: GraphQLSchema) -> dict[tuple[str, ...], str]:
    """For each field of each type that can be reached, the shortest document that asks for it, by the fields on its way."""
    found: dict[tuple[str, ...], str] = {}
    paths: dict[str, tuple[str, tuple[str, ...]]] = {name: (name.lower(), ()) for name in ("Query", "Mutation", "Subscription")}
    queue = list(paths)
    while queue:
        type_name = queue.pop(0)
        of_type = schema.type_map[type_name]
        kind, path = paths[type_name]
        for name, field in getattr(of_type, "fields", {}).items():
            if name in ("_entities", "_service"):
                continue
            target = get_named_type(field.type)
            variables: dict[str, str] = {"always": "ID!"}
            steps = (*path, f"{type_name}.{name}")
            found[steps] = _document(schema, kind, steps, target, variables)
            names = [target.name] if not is_leaf_type(target) else []
            if is_abstract_type(target):
                names += [each.name for each in schema.get_possible_types(target)]
            for each in names:
                if each not in paths:
                    paths[each] = (kind, steps)
                    queue.append(each)
    return found


def _document(schema: GraphQLSchema, kind: str, steps: tuple[str, ...], last: object, variables: dict[str, str]) -> str:
    text, ending = "", ""
    for number, step in enumerate(steps):
        type_name, name = step.split(".")
        field = schema.type_map[type_name].fields[name]  # type: ignore[union-attr]
        if number:
            before = steps[number - 1].split(".")
            came = get_named_type(schema.type_map[before[0]].fields[before[1]].type)  # type: ignore[union-attr]
            if came.name != type_name:
                text += f" {{ ... on {type_name}"
                ending += " }"
        text += f" {{ {name}{arguments(field, variables)}"
        ending += " }"
    leaf = "" if is_leaf_type(last) else " { __typename }"
    # $always is used by nothing that runs: the operation asks for a node first, with an id that is never given.
    guard = " n: node(id: $always) { id }" if kind == "query" else ""
    text = text.replace(" {", " {" + guard, 1)
    declared = {name: type_ for name, type_ in variables.items() if name != "always" or guard}
    head = f"({', '.join(f'${name}: {type_}' for name, type_ in declared.items())})" if declared else ""
    return f"{kind}{head}{text}{leaf}{ending}"


async def test_every_field_opens_to_exactly_the_kinds_of_the_table(world: World) -> None:
    schema = engine()._schema
    needs = rights(schema)
    await agree(world, *DELEGABLE)
    tokens = {
        "public": None,
        "member": await ann_logs_in(world),
        "partner for a member": (await exchange(world, await ann_hands_over(world, *DELEGABLE))).json()["access_token"],
        "partner": await world.token("grocer"),
        "operator": await world.operator(),
    }
    assert set(tokens) == set(KINDS)
    before = await world.transactions()
    asked = documents(build_schema((ROOT / "schema.graphql").read_text(), assume_valid=True))

    async def begins(kind: str, text: str) -> bool:
        """Whether a subscription is let in."""
        headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {tokens[kind]}"} if tokens[kind] else {})
        asked = await world.named(tokens[kind] or "", text)
        async with world.http.stream("POST", "/graphql", json=asked, headers=headers) as answer:
            assert answer.status_code in (200, 401, 403)
            return answer.status_code == 200

    async def reaches(kind: str, text: str) -> bool:
        if text.startswith("subscription"):
            return await begins(kind, text)
        answer = await world.post(tokens[kind], text)
        body = answer.json()
        assert "data" not in body or body["data"] is None, text
        code = body["errors"][0].get("extensions", {}).get("code")
        assert answer.status_code in ((401, 403) if code in ("UNAUTHENTICATED", "FORBIDDEN") else (200,)), (text, body)
        return code not in ("UNAUTHENTICATED", "FORBIDDEN")

    wrong, over_the_wire = [], set[tuple[str, tuple[Need, ...]]]()
    for steps, text in asked.items():
        on_the_way = tuple(dict.fromkeys(needs.get(field_of(step), PUBLIC) for step in steps))
        found = needs_of(parse(text), schema, needs)
        # Over the wire one field of each type is asked for, of those that need the same.
        group = (field_of(steps[-1])[0], on_the_way)
        first = group not in over_the_wire
        over_the_wire.add(group)
        for kind, held in {**KINDS, **ROLES}.items():
            expected = all(opens(need, held) for need in on_the_way)
            # Without a token no document is run, whatever it asks for.
            reached = expected and kind != "public"
            asks = first and kind in tokens
            if any(missing(found, held)) == expected or (asks and await reaches(kind, text) != reached):
                wrong.append((steps, kind, expected))
    assert wrong == []
    assert len(asked) > 300
    assert len(over_the_wire) > 100
    reached = {field_of(steps[-1]) for steps in asked}
    assert {key for key in needs if isinstance(schema.type_map[key[0]], GraphQLObjectType)} - reached - UNREACHED == set()
    assert await world.transactions() == before


# Of the federation's own machinery.
UNREACHED = {("_Service", "sdl"), ("Query", "_service"), ("Query", "_entities")}


def field_of(step: str) -> tuple[str, str]:
    type_name, name = step.split(".")
    return type_name, name
