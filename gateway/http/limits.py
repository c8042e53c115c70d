"""What one document may ask for: how deep, how often under other names, and at what cost.

The cost of a field is one, CONNECTION of a connection, or what WEIGHTS says, and one for every item of the lists that it is
given, times the items of every list around it: `first` of a connection, the length of a list that a mutation was given, what
LIST_SIZES says or LIST_SIZE where nothing says how long a list is (docs/security.md, "Limits").
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    is_abstract_type,
    is_list_type,
    is_non_null_type,
    value_from_ast_untyped,
)

DEPTH_MAX = 20
REPEATS_MAX = 12
FRAGMENTS_MAX = 50
ALIASES_MAX = 30
DIRECTIVES_MAX = 30
SELECTIONS_MAX = 5_000
COST_MAX = 200_000
LIST_SIZE = 5
LIST_SIZES = {"consents": 100, "membersBy": 50}
# Names are repeated for every item of an answer.
NAME_MAX = 64
OPERATIONS_MAX = 20
# How often an operation asks for the schema: it is told in one piece, while nobody else has a turn.
TOLD_MAX = 2
# A proof climbs through all transactions of its block, origins through a member's; the integrity checks read the whole database;
# the schema is long. What reads by itself, or asks a partner's system, costs more than what is there already, and so does what
# one person may have kept for ever, again and again.
WEIGHTS = {
    "proof": 100, "origins": 100, "details": 100, "integrity": 20_000, "sdl": 100, "nativeBalance": 100, "contracts": 3,
    "asOf": 10, "cards": 10, "consents": 10, "expiring": 10, "memberships": 10, "person": 10, "takes": 10,
    "grantConsent": 100, "withdrawConsent": 100, "updatePerson": 100, "__schema": 20_000, "__type": 1_000,
}  # fmt: skip
# What each item of a list costs beside its fields: entities are looked up one by one.
EACH = {"_entities": 10}

# Looked up in the database and made into a page, however few are on it.
CONNECTION = 50

Cost = Callable[[Mapping[str, Any]], int]


def check_shape(document: DocumentNode) -> int:
    """Answers how many selections a document comes to with its fragments. Raises GraphQLError for an operation that is too deep,
    repeats itself, or gives too many other names.

    It comes before validation, whose time grows with the square of how often a field is repeated, in fragments that nothing
    spreads too: so these, and those that spread themselves, are refused here. What is unknown is left to validation.
    """
    fragments = _fragments(document)
    defined = sum(isinstance(each, FragmentDefinitionNode) for each in document.definitions)
    if defined > FRAGMENTS_MAX:
        raise GraphQLError(f"The document has more than {FRAGMENTS_MAX} fragments.")
    if defined > len(fragments):
        raise GraphQLError("Two fragments have the same name.")
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    if len(operations) > OPERATIONS_MAX:
        raise GraphQLError(f"The document has more than {OPERATIONS_MAX} operations.")
    visited, spread = 0, set[str]()
    for operation in operations:
        if operation.name is not None:
            _check_name(operation.name.value)
        visited = _check_operation(operation, fragments, visited, spread)
    if unused := sorted(fragments.keys() - spread):
        raise GraphQLError(f"The fragment {unused[0][:NAME_MAX]} is spread nowhere.")
    return visited


def _check_operation(
    operation: OperationDefinitionNode, fragments: dict[str, FragmentDefinitionNode], visited: int, spread: set[str]
) -> int:
    """Answers how many selections were visited by now, of all operations of the document; adds what was `spread`."""
    aliases = directives = told = 0
    asked: Counter[tuple[str, ...]] = Counter()

    def walk(selections: SelectionSetNode, depth: int, place: tuple[str, ...], within: frozenset[str], of_schema: bool) -> None:
        nonlocal aliases, directives, told, visited
        if depth > DEPTH_MAX:
            raise GraphQLError(f"The document is nested more than {DEPTH_MAX} levels deep.")
        for node in selections.selections:
            visited += 1
            if visited > SELECTIONS_MAX:  # fragments that spread fragments twice each grow without end
                raise GraphQLError(f"The document comes to more than {SELECTIONS_MAX} selections with its fragments.")
            directives += len(node.directives or ())
            if isinstance(node, FieldNode):
                aliases += node.alias is not None
                if node.alias is not None:
                    _check_name(node.alias.value)
                    if of_schema:
                        raise GraphQLError("What is told of the schema has no other names.")
                told += node.name.value in _META
                if told > TOLD_MAX:
                    raise GraphQLError(f"The document asks for __schema and __type more than {TOLD_MAX} times.")
                here = (*place, (node.alias or node.name).value)
                asked[here] += 1
                if asked[here] > REPEATS_MAX:
                    raise GraphQLError(f"The document asks for {'.'.join(here)} more than {REPEATS_MAX} times.")
                if node.selection_set:
                    walk(node.selection_set, depth + 1, here, within, of_schema or node.name.value in _META)
            elif isinstance(node, InlineFragmentNode):
                walk(node.selection_set, depth, place, within, of_schema)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name in within:
                    raise GraphQLError(f"The fragment {name[:NAME_MAX]} spreads itself.")
                if name in fragments:
                    spread.add(name)
                    walk(fragments[name].selection_set, depth, place, within | {name}, of_schema)
            if aliases > ALIASES_MAX:
                raise GraphQLError(f"The document gives more than {ALIASES_MAX} other names to fields.")
            if directives > DIRECTIVES_MAX:
                raise GraphQLError(f"The document has more than {DIRECTIVES_MAX} directives.")

    walk(operation.selection_set, 1, (), frozenset(), of_schema=False)
    return visited


def _check_name(name: str) -> None:
    if len(name) > NAME_MAX:
        raise GraphQLError(f"The name {name[:NAME_MAX]}... is longer than {NAME_MAX} characters.")


def compile_costs(schema: GraphQLSchema, document: DocumentNode) -> Callable[[OperationDefinitionNode], Cost]:
    """What makes of an operation of a valid document a function from its variables to its cost.

    A fragment is worked out once, wherever it is spread: spread one within another they come to far more than their text.
    """
    fragments, worked_out = _fragments(document), dict[tuple[str, bool], Cost]()
    sizes = _introspected(schema)
    of_all_types = False

    def of_fragment(name: str) -> Cost:
        if (name, of_all_types) not in worked_out:
            fragment = fragments[name]
            on = schema.type_map[fragment.type_condition.name.value]
            worked_out[name, of_all_types] = _sum(of_selections(fragment.selection_set, on))
        return worked_out[name, of_all_types]

    def of_selections(selections: SelectionSetNode, parent: Any) -> list[Cost]:
        found: list[Cost] = []
        for node in selections.selections:
            if isinstance(node, FieldNode):
                found.append(of_field(node, parent))
            elif isinstance(node, InlineFragmentNode):
                on = node.type_condition
                found += of_selections(node.selection_set, schema.type_map[on.name.value] if on else parent)
            elif isinstance(node, FragmentSpreadNode):
                found.append(of_fragment(node.name.value))
        return found

    def of_field(node: FieldNode, parent: Any) -> Cost:
        field = getattr(parent, "fields", {}).get(node.name.value)
        given = [_items(a.value, field.args[a.name.value].type) for a in node.arguments or ()] if field is not None else []
        given = [each for each in given if each is not _none]
        if given:
            return _sum([*given, of_bare_field(node, parent, field)])
        return of_bare_field(node, parent, field)

    def of_bare_field(node: FieldNode, parent: Any, field: Any) -> Cost:
        """A field, whatever it is given."""
        if node.selection_set is None:
            return _Constant(WEIGHTS.get(node.name.value, 1))
        if field is None:  # __schema and __type, which are fields of no type
            told = _sum(of_selections(node.selection_set, schema.type_map[_META[node.name.value]]))
            weight = WEIGHTS[node.name.value]
            return _each(told, lambda found: weight + found)
        if parent.name.startswith("__"):
            return of_introspected(node, parent, field)
        inner = _sum(of_selections(node.selection_set, get_named_type(field.type)))
        times = _times(node, field.type, _is_connection(parent))
        weight = WEIGHTS.get(node.name.value, CONNECTION if _is_connection(get_named_type(field.type)) else 1)
        each = EACH.get(node.name.value, 0)
        if isinstance(times, _Constant):
            items = times.value
            return _each(inner, lambda found: weight + items * (each + found))
        return lambda variables: weight + times(variables) * (each + inner(variables))

    def of_introspected(node: FieldNode, parent: Any, field: Any) -> Cost:
        """Of what is told of the schema: as much as there is of all types together, or at most of one."""
        nonlocal of_all_types
        before, name = of_all_types, node.name.value
        of_all_types = before or (name == "types" and parent.name == "__Schema")
        assert node.selection_set is not None
        inner = _sum(of_selections(node.selection_set, get_named_type(field.type)))
        of_all_types = before
        average, largest = sizes.get(name, (1, 1))
        items = average if of_all_types else largest
        return _each(inner, lambda found: 1 + items * found)

    def of_operation(operation: OperationDefinitionNode) -> Cost:
        cost = _sum(of_selections(operation.selection_set, schema.get_root_type(operation.operation)))
        declared = [d for d in operation.variable_definitions or () if d.default_value]
        defaults = {d.variable.name.value: value_from_ast_untyped(d.default_value) for d in declared if d.default_value}
        return cost if isinstance(cost, _Constant) else lambda variables: cost(_Given(defaults, variables))

    return of_operation


@cache
def _introspected(schema: GraphQLSchema) -> dict[str, tuple[int, int]]:
    """How many items the lists have that tell of the schema: on average of all types, rounded up, and at most."""
    types = list(schema.type_map.values())
    of_types = [getattr(each, "fields", {}) for each in types if not isinstance(each, GraphQLInputObjectType)]
    lengths = {
        "fields": [len(fields) for fields in of_types],
        "args": [len(field.args) for fields in of_types for field in fields.values()],
        "inputFields": [len(each.fields) for each in types if isinstance(each, GraphQLInputObjectType)],
        "enumValues": [len(each.values) for each in types if isinstance(each, GraphQLEnumType)],
        "possibleTypes": [len(schema.get_possible_types(each)) for each in types if is_abstract_type(each)],
        "interfaces": [len(getattr(each, "interfaces", ())) for each in types],
        "types": [len(types)],
        "directives": [len(schema.directives)],
    }
    counts = {"args": len(lengths["args"]), "types": 1, "directives": 1}
    return {name: (-(-sum(found) // counts.get(name, len(types))), max(found)) for name, found in lengths.items()}


class _Given(dict[str, Any]):
    """An operation's variables, with what was counted of them: fields under other names are given the same again."""

    def __init__(self, defaults: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        super().__init__(defaults)
        self.update(variables)
        self.counted: dict[str, int] = {}


def _items(value: ValueNode, type_: GraphQLInputType) -> Cost:
    """How many items the lists of a field's argument have, those within others too."""
    count = _counter(type_)
    if count is None:
        return _none
    if isinstance(value, VariableNode):
        name = value.name.value

        def counted(variables: Mapping[str, Any]) -> int:
            assert isinstance(variables, _Given)
            if name not in variables.counted:
                variables.counted[name] = count(variables.get(name))
            return variables.counted[name]

        return counted
    inner: list[Cost] = []
    bare = type_.of_type if is_non_null_type(type_) else type_
    if isinstance(value, ListValueNode):
        inner.append(_Constant(len(value.values)))
        inner += [_items(each, bare.of_type if is_list_type(bare) else bare) for each in value.values]
    elif isinstance(value, ObjectValueNode):
        fields = getattr(get_named_type(bare), "fields", {})
        inner += [_items(each.value, fields[each.name.value].type) for each in value.fields if each.name.value in fields]
    return _sum(inner)


@cache
def _counter(type_: GraphQLInputType) -> Callable[[Any], int] | None:
    """A function from a value of an input type to how many items its lists have; None where it can hold no list.

    What is not of the type counts for nothing: it is refused.
    """
    if is_non_null_type(type_):
        return _counter(type_.of_type)
    if is_list_type(type_):
        inner = _counter(type_.of_type)
        if inner is None:
            return lambda value: len(value) if isinstance(value, list) else 1
        return lambda value: len(value) + sum(map(inner, value)) if isinstance(value, list) else 1 + inner(value)
    if not isinstance(type_, GraphQLInputObjectType):
        return None
    # An input type that holds itself is not counted within itself; there is none.
    within = [(name, found) for name, field in type_.fields.items() if (found := _counter(field.type)) is not None]
    if not within:
        return None

    def of_object(value: Any) -> int:
        return sum(count(value[name]) for name, count in within if value.get(name) is not None) if isinstance(value, dict) else 0

    return of_object


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}


class _Constant:
    """A cost that no variable changes."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self, variables: Mapping[str, Any]) -> int:
        return self.value


_one, _none = _Constant(1), _Constant(0)


def _sum(costs: list[Cost]) -> Cost:
    constant = sum(cost.value for cost in costs if isinstance(cost, _Constant))
    others = [cost for cost in costs if not isinstance(cost, _Constant)]
    if not others:
        return _Constant(constant)
    return lambda variables: constant + sum(cost(variables) for cost in others)


def _each(cost: Cost, of: Callable[[int], int]) -> Cost:
    """A function of a cost."""
    return _Constant(of(cost.value)) if isinstance(cost, _Constant) else lambda variables: of(cost(variables))


def _is_connection(parent: Any) -> bool:
    """Whether a type's lists are a page, whose length the field around it has said already."""
    return isinstance(parent, GraphQLObjectType) and parent.name.endswith("Connection")


def _times(node: FieldNode, type_: Any, in_connection: bool) -> Cost:
    """How many items a field's selection is asked of."""
    for argument in node.arguments or ():
        value = argument.value
        if argument.name.value == "first":
            if isinstance(value, IntValueNode):
                return _Constant(max(int(value.value), 0))
            if isinstance(value, VariableNode):
                name = value.name.value
                return lambda variables: _count(variables.get(name))
    bare = type_.of_type if is_non_null_type(type_) else type_
    if not is_list_type(bare) or in_connection:
        return _one
    for argument in node.arguments or ():
        if argument.name.value in _BATCHES and isinstance(argument.value, ListValueNode):
            return _Constant(len(argument.value.values))
        if argument.name.value in _BATCHES and isinstance(argument.value, VariableNode):
            given = argument.value.name.value
            return lambda variables: len(variables[given]) if isinstance(variables.get(given), list) else LIST_SIZE
    return _Constant(LIST_SIZES.get(node.name.value, LIST_SIZE))


_META = {"__schema": "__Schema", "__type": "__Type"}
_BATCHES = ("input", "refs", "representations")


def _count(value: Any) -> int:
    # GraphQL's Int may be written as 5.0 (section 3.5.1); what is no Int at all is refused before it costs anything.
    return max(int(value), 0) if isinstance(value, int | float) and abs(value) < 2**31 else LIST_SIZE
