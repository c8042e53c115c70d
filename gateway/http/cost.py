"""What an operation costs.

The cost of a field is one, CONNECTION of a connection, or what WEIGHTS says, and one for every item of the lists that it is
given, times the items of every list around it: `first` of a connection, the length of a list that a mutation was given, how many
there are in the coalition of what is listed without a page, what LIST_SIZES says, or LIST_SIZE where nothing says how long a list
is (docs/security.md, "Limits").
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentSpreadNode,
    GraphQLEnumType,
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

from gateway.http.shape import OF_SCHEMA, fragments_of

COST_MAX = 200_000
LIST_SIZE = 5
LIST_SIZES = {"consents": 100, "membersBy": 50, "lines": 12}
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

Cost = Callable[["_Given"], int]
OperationCost = Callable[[Mapping[str, Any], Mapping[str, int]], int]


def compile_costs(schema: GraphQLSchema, document: DocumentNode) -> Callable[[OperationDefinitionNode], OperationCost]:
    """What makes of an operation of a valid document a function from its variables, and from how long the lists of a coalition
    are (`Coalition.lengths`), to its cost."""
    return _Compiler(schema, document).of_operation


class _Compiler:
    """Works out what a document's selections cost; a fragment once, wherever it is spread: spread one within another they come to
    far more than their text. `of_all_types` says that what is told of the schema is told of every type."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema, self._sizes, self._fragments = schema, _introspected(schema), fragments_of(document)
        self._worked_out: dict[tuple[str, bool], Cost] = {}

    def of_operation(self, operation: OperationDefinitionNode) -> OperationCost:
        cost = self._selections(operation.selection_set, self._schema.get_root_type(operation.operation), False)
        declared = [d for d in operation.variable_definitions or () if d.default_value]
        defaults = {d.variable.name.value: value_from_ast_untyped(d.default_value) for d in declared if d.default_value}
        return lambda variables, lengths: cost(_Given(defaults, variables, lengths))

    def _selections(self, selections: SelectionSetNode, parent: Any, of_all_types: bool) -> Cost:
        found: list[Cost] = []
        for node in selections.selections:
            if isinstance(node, FieldNode):
                found.append(self._field(node, parent, of_all_types))
            elif isinstance(node, InlineFragmentNode):
                on = node.type_condition
                within = self._schema.type_map[on.name.value] if on else parent
                found.append(self._selections(node.selection_set, within, of_all_types))
            elif isinstance(node, FragmentSpreadNode):
                found.append(self._fragment(node.name.value, of_all_types))
        return _sum(found)

    def _fragment(self, name: str, of_all_types: bool) -> Cost:
        if (name, of_all_types) not in self._worked_out:
            fragment = self._fragments[name]
            on = self._schema.type_map[fragment.type_condition.name.value]
            self._worked_out[name, of_all_types] = self._selections(fragment.selection_set, on, of_all_types)
        return self._worked_out[name, of_all_types]

    def _field(self, node: FieldNode, parent: Any, of_all_types: bool) -> Cost:
        field = getattr(parent, "fields", {}).get(node.name.value)
        given = [_items(a.value, field.args[a.name.value].type) for a in node.arguments or ()] if field is not None else []
        given = [each for each in given if each is not _none]
        bare = self._bare_field(node, parent, field, of_all_types)
        return _sum([*given, bare]) if given else bare

    def _bare_field(self, node: FieldNode, parent: Any, field: Any, of_all_types: bool) -> Cost:
        """A field, whatever it is given."""
        if node.selection_set is None:
            return _Constant(WEIGHTS.get(node.name.value, 1))
        if field is None:  # __schema and __type, which are fields of no type
            told = self._selections(node.selection_set, self._schema.type_map[OF_SCHEMA[node.name.value]], of_all_types)
            weight = WEIGHTS[node.name.value]
            return _each(told, lambda found: weight + found)
        if parent.name.startswith("__"):
            return self._introspected(node, parent, field, of_all_types)
        inner = self._selections(node.selection_set, get_named_type(field.type), of_all_types)
        times = _times(node, field.type, _is_connection(parent))
        weight = WEIGHTS.get(node.name.value, CONNECTION if _is_connection(get_named_type(field.type)) else 1)
        each = EACH.get(node.name.value, 0)
        if isinstance(times, _Constant):
            items = times.value
            return _each(inner, lambda found: weight + items * (each + found))
        return lambda variables: weight + times(variables) * (each + inner(variables))

    def _introspected(self, node: FieldNode, parent: Any, field: Any, of_all_types: bool) -> Cost:
        """Of what is told of the schema: as much as there is of all types together, or at most of one."""
        name = node.name.value
        of_all_types = of_all_types or (name == "types" and parent.name == "__Schema")
        assert node.selection_set is not None
        inner = self._selections(node.selection_set, get_named_type(field.type), of_all_types)
        average, largest = self._sizes.get(name, (1, 1))
        items = average if of_all_types else largest
        return _each(inner, lambda found: 1 + items * found)


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
    """An operation's variables, with what was counted of them: fields under other names are given the same again. And how long
    the lists of the coalition are."""

    def __init__(self, defaults: Mapping[str, Any], variables: Mapping[str, Any], lengths: Mapping[str, int]) -> None:
        super().__init__(defaults)
        self.update(variables)
        self.counted: dict[str, int] = {}
        self.lengths = lengths


def _items(value: ValueNode, type_: GraphQLInputType) -> Cost:
    """How many items the lists of a field's argument have, those within others too."""
    count = _counter(type_)
    if count is None:
        return _none
    if isinstance(value, VariableNode):
        name = value.name.value

        def counted(variables: _Given) -> int:
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


class _Constant:
    """A cost that no variable changes."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self, variables: _Given) -> int:
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
    name = node.name.value
    size = LIST_SIZES.get(name, LIST_SIZE)
    return lambda variables: variables.lengths.get(name, size)


_BATCHES = ("input", "refs", "representations")


def _count(value: Any) -> int:
    # GraphQL's Int may be written as 5.0 (section 3.5.1); what is no Int at all is refused before it costs anything.
    return max(int(value), 0) if isinstance(value, int | float) and abs(value) < 2**31 else LIST_SIZE
