"""Compiled completion of GraphQL results that are plain objects.

graphql-core completes a value field by field, each with an info, a path and a search for awaitables; of a batch of
purchases that was the largest share of the time. Here each selection gets one function that knows its fields, kept with
its document (see docs/decisions/0015-outputs.md). What is not plain, and every error, is left to graphql-core.
"""

from collections.abc import Callable
from typing import Any

from graphql import (
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList
from strawberry.types import Info
from strawberry.types.field import StrawberryField

Complete = Callable[[Any, GraphQLResolveInfo[Any]], Any]
Collect = Callable[[GraphQLObjectType, FieldDetailsList], CollectedFields]


class NotPlain(Exception):
    """A value that is not completed here: graphql-core does it, and says what is wrong with it."""


class Outputs:
    """How the values of one document's fields are completed; each selection is compiled when it is first met.

    For documents without directives only: what they select is the same in every execution.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Complete | None] = {}

    def find(self, return_type: Any, details: FieldDetailsList, collect: Collect) -> Complete | None:
        """The function for a field's value; None where something in the selection is not plain."""
        key = (id(return_type), *(id(each.node) for each in details))
        try:
            return self._known[key]
        except KeyError:
            found = self._known[key] = _compile(return_type, details, collect)
            return found


def _compile(return_type: Any, details: FieldDetailsList, collect: Collect) -> Complete | None:
    if isinstance(return_type, GraphQLNonNull):
        inner = _compile(return_type.of_type, details, collect)
        return None if inner is None else _required(inner)
    if is_list_type(return_type):
        inner = _compile(return_type.of_type, details, collect)
        return None if inner is None else _items(inner)
    if is_leaf_type(return_type):
        return _leaf(return_type)
    if is_abstract_type(return_type):
        return _abstract(details, collect)
    return _object(return_type, details, collect)


def _required(inner: Complete) -> Complete:
    def complete(value: Any, info: GraphQLResolveInfo[Any]) -> Any:
        completed = inner(value, info)
        if completed is None:
            raise NotPlain
        return completed

    return complete


def _items(inner: Complete) -> Complete:
    def complete(value: Any, info: GraphQLResolveInfo[Any]) -> Any:
        if value is None:
            return None
        if type(value) is not list:
            raise NotPlain
        return [inner(item, info) for item in value]

    return complete


def _leaf(return_type: Any) -> Complete:
    coerce = return_type.coerce_output_value
    as_it_is: type = {"String": str, "ID": str, "Int": int, "Boolean": bool, "Points": int}.get(return_type.name, NotPlain)
    most = 2**31 - 1 if return_type.name == "Int" else 2**53 - 1

    def complete(value: Any, info: GraphQLResolveInfo[Any]) -> Any:
        kind = type(value)
        if kind is as_it_is and (kind is not int or -most <= value <= most):
            return value
        if value is None:
            return None
        completed = coerce(value)
        if completed is None:
            raise NotPlain
        return completed

    return complete


def _abstract(details: FieldDetailsList, collect: Collect) -> Complete:
    by_class: dict[type, Complete | None] = {}

    def complete(value: Any, info: GraphQLResolveInfo[Any]) -> Any:
        if value is None:
            return None
        cls = type(value)
        if cls not in by_class:
            by_class[cls] = _object(_object_type(cls, info), details, collect)
        found = by_class[cls]
        if found is None:
            raise NotPlain
        return found(value, info)

    return complete


def _object_type(cls: type, info: GraphQLResolveInfo[Any]) -> GraphQLObjectType:
    definition = getattr(cls, "__strawberry_definition__", None)
    found = info.schema.get_type(definition.name) if definition else None
    if not isinstance(found, GraphQLObjectType):
        raise NotPlain
    return found


def _object(return_type: GraphQLObjectType, details: FieldDetailsList, collect: Collect) -> Complete | None:
    selected = collect(return_type, details)
    definition = return_type.extensions.get("strawberry-definition")
    if definition is None or selected.new_defer_usages or selected.forbidden_directive_instances:
        return None
    # A generic type's values are of the class that the type was made from.
    classes = (definition.origin, definition.concrete_of.origin) if definition.concrete_of else (definition.origin,)
    parts: list[tuple[str, Callable[[Any, GraphQLResolveInfo[Any]], Any], Complete]] = []
    constant: dict[str, Any] = {}
    for answer_name, of_field in selected.grouped_field_set.items():
        name = of_field[0].node.name.value
        if name == "__typename":
            constant[answer_name] = return_type.name
            continue
        field = return_type.fields[name]
        read = _reader(field.extensions.get("strawberry-definition"))
        completed = _compile(field.type, of_field, collect) if read else None
        if read is None or completed is None:
            return None
        constant[answer_name] = None  # keeps the order of the selection
        parts.append((answer_name, read, completed))

    def complete(value: Any, info: GraphQLResolveInfo[Any]) -> Any:
        if value is None:
            return None
        if type(value) not in classes:
            raise NotPlain
        answer = constant.copy()
        for answer_name, read, completed in parts:
            answer[answer_name] = completed(read(value, info), info)
        return answer

    return complete


def _reader(field: StrawberryField | None) -> Callable[[Any, GraphQLResolveInfo[Any]], Any] | None:
    """Gets a field's value from its object: the attribute, or what a method without arguments returns at once."""
    if field is None or field.arguments or field.extensions or field.is_async:
        return None
    resolver = field.base_resolver
    if resolver is None:
        name = field.python_name
        return lambda value, info: getattr(value, name)
    method: Any = resolver.wrapped_func
    if resolver.info_parameter is None:
        return lambda value, info: method(value)
    return lambda value, info: method(value, Info(_raw_info=info, _field=field))
