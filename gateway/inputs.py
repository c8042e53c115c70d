"""Compiled conversion of GraphQL inputs to their Python classes.

graphql-core and Strawberry look every field of every input object up again, which was most of the time of a batch of
purchases; here each input class gets one function that knows its fields (see docs/decisions/0005-inputs.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any

import strawberry
from graphql import (
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    Undefined,
    type_from_ast,
)

Convert = Callable[[Any], Any]
Coercers = tuple[tuple[str, Convert, bool], ...]


def compile_inputs(schema: strawberry.Schema) -> None:
    """Give every input type of the schema its own `from_input`, and let graphql-core check @oneOf, which then says where."""
    compiled: dict[str, Convert] = {}
    for graphql_type in schema._schema.type_map.values():
        if isinstance(graphql_type, GraphQLInputObjectType):
            definition = graphql_type.extensions["strawberry-definition"]
            definition.from_input = _hook(_compile(graphql_type, compiled))
            graphql_type.is_one_of = definition.is_one_of
    told = schema._schema.type_map["__Type"]
    assert isinstance(told, GraphQLObjectType)
    # Strawberry's own fails for lists, and for what is not null.
    told.fields["isOneOf"].resolve = lambda type_, info: type_.is_one_of if isinstance(type_, GraphQLInputObjectType) else None


def _hook(convert: Convert) -> Callable[..., Any]:
    return lambda cls, value, context: convert(value)


def _compile(graphql_type: GraphQLInputObjectType, compiled: dict[str, Convert]) -> Convert:
    known = compiled.get(graphql_type.name)
    if known is not None:
        return known
    definition = graphql_type.extensions["strawberry-definition"]
    cls = definition.origin
    plain: list[tuple[str, str]] = []
    nested: list[tuple[str, str, Convert]] = []
    absent: dict[str, None] = {}
    for name, field in graphql_type.fields.items():
        of = field.extensions["strawberry-definition"]
        if of.default_value is MISSING and of.default_factory is MISSING:
            absent[of.python_name] = None
        convert = _converter(field.type, compiled)
        if convert is None:
            plain.append((name, of.python_name))
        else:
            nested.append((name, of.python_name, convert))

    def build(value: Mapping[str, Any]) -> Any:
        if isinstance(value, cls):
            return value
        given = absent.copy()
        for name, python_name in plain:
            if name in value:
                given[python_name] = value[name]
        for name, python_name, convert in nested:
            if name in value:
                part = value[name]
                given[python_name] = None if part is None else convert(part)
        return cls(**given)

    compiled[graphql_type.name] = build
    return build


def _converter(type_: Any, compiled: dict[str, Convert]) -> Convert | None:
    """How values of a type are converted; None: they are what they should be already."""
    if isinstance(type_, GraphQLNonNull):
        return _converter(type_.of_type, compiled)
    if isinstance(type_, GraphQLList):
        convert = _converter(type_.of_type, compiled)
        # A list is copied even so: graphql-core hands out the same default to every request.
        return list if convert is None else lambda values: [None if v is None else convert(v) for v in values]
    return _compile(type_, compiled) if isinstance(type_, GraphQLInputObjectType) else None


# ---------------------------------------------------------------- variables


class NotPlain(Exception):
    """A variable that is not coerced here: graphql-core does it, and says what is wrong with it."""


def compile_variables(schema: GraphQLSchema, operation: OperationDefinitionNode) -> Coercers | None:
    """A function for each variable of an operation; None where one has a default value, which is left to graphql-core."""
    found = []
    for definition in operation.variable_definitions or ():
        type_ = type_from_ast(schema, definition.type)
        if definition.default_value is not None or type_ is None:
            return None
        found.append((definition.variable.name.value, _coercer(type_, {}), isinstance(type_, GraphQLNonNull)))
    return tuple(found)


def coerce_variables(coercers: Coercers, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an operation's variables. Raises NotPlain."""
    coerced = {}
    for name, coerce, required in coercers:
        value = given.get(name, Undefined)
        if value is not Undefined:
            coerced[name] = coerce(value)
        elif required:
            raise NotPlain(name)
    return coerced


def _coercer(type_: Any, known: dict[str, Convert]) -> Convert:
    """Coerces a JSON value of a type to what resolvers get. What it accepts, graphql-core accepts with the same result."""
    if isinstance(type_, GraphQLNonNull):
        inner = _coercer(type_.of_type, known)

        def required(value: Any) -> Any:
            if value is None:
                raise NotPlain
            return inner(value)

        return required
    if isinstance(type_, GraphQLList):
        item = _coercer(type_.of_type, known)

        def items(value: Any) -> Any:
            if value is None:
                return None
            if type(value) is not list:
                raise NotPlain
            return [item(v) for v in value]

        return items
    if isinstance(type_, GraphQLInputObjectType):
        return known.get(type_.name) or _object_coercer(type_, known)
    parse = type_.coerce_input_value

    def leaf(value: Any) -> Any:
        if value is None:
            return None
        try:
            parsed = parse(value)
        except (GraphQLError, RecursionError):  # graphql-core says that it is nested too deeply
            raise NotPlain from None
        if parsed is Undefined:
            raise NotPlain
        return parsed

    return leaf


def _object_coercer(type_: GraphQLInputObjectType, known: dict[str, Convert]) -> Convert:
    definition = type_.extensions["strawberry-definition"]
    cls, one_of = definition.origin, definition.is_one_of
    parts: dict[str, tuple[str, Convert]] = {}

    def build(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict or not required <= value.keys() or (one_of and len(value) != 1):
            raise NotPlain
        given = absent.copy()
        for name, part in value.items():
            found = parts.get(name)
            if found is None:
                raise NotPlain
            given[found[0]] = found[1](part)
        if one_of and None in value.values():
            raise NotPlain
        return cls(**given)

    known[type_.name] = build
    absent: dict[str, None] = {}
    required: set[str] = set()
    for name, field in type_.fields.items():
        of = field.extensions["strawberry-definition"]
        parts[name] = of.python_name, _coercer(field.type, known)
        if of.default_value is not MISSING or of.default_factory is not MISSING:
            continue
        absent[of.python_name] = None
        if isinstance(field.type, GraphQLNonNull):
            required.add(name)
    return build
