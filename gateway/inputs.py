"""Compiled conversion of GraphQL inputs to their Python classes.

Strawberry looks every field of every input object up again, which was two fifths of the time of a batch of
purchases; here each input class gets one function that knows its fields (see docs/decisions/0005-inputs.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any

import strawberry
from graphql import GraphQLInputObjectType, GraphQLList, GraphQLNonNull

Convert = Callable[[Any], Any]


def compile_inputs(schema: strawberry.Schema) -> None:
    """Give every input type of the schema its own `from_input`."""
    compiled: dict[str, Convert] = {}
    for graphql_type in schema._schema.type_map.values():
        if isinstance(graphql_type, GraphQLInputObjectType):
            definition = graphql_type.extensions["strawberry-definition"]
            definition.from_input = _hook(_compile(graphql_type, compiled))


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
