"""graphql-core's executor, with what was compiled for a document put in its way."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    is_non_null_type,
    type_from_ast,
)
from graphql.execution.collect_fields import FieldDetails
from graphql.execution.values import VariableValues
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from gateway.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Root:
    """The only field that an operation asks of its root, whose resolver takes variables as they were coerced."""

    path: Path
    parent: GraphQLObjectType
    definition: GraphQLField
    details: list[FieldDetails]
    resolve: Callable[..., Awaitable[Any]]
    arguments: tuple[tuple[str, str], ...]
    """The names that the resolver has for its arguments, each with the variable behind it."""


def compile_root(schema: GraphQLSchema, operation: OperationDefinitionNode) -> Root | None:
    """The root field of an operation that has just one, with an asynchronous resolver, and nothing but variables for its
    arguments; None for any other, which is left to graphql-core. For documents without directives."""
    parent = schema.get_root_type(operation.operation)
    node, *others = operation.selection_set.selections
    if parent is None or operation.operation is OperationType.SUBSCRIPTION or others or not isinstance(node, FieldNode):
        return None
    definition = parent.fields.get(node.name.value)
    field: StrawberryField | None = definition.extensions.get("strawberry-definition") if definition else None
    if definition is None or field is None or field.base_resolver is None or not field.is_async or field.extensions:
        return None
    resolver = field.base_resolver
    if resolver.parent_parameter or resolver.root_parameter or resolver.info_parameter is None:
        return None
    types = {d.variable.name.value: type_from_ast(schema, d.type) for d in operation.variable_definitions or ()}
    arguments = []
    for given in node.arguments or ():
        if not isinstance(given.value, VariableNode):
            return None
        argument, variable = definition.args[given.name.value], given.value.name.value
        if is_non_null_type(argument.type) and not is_non_null_type(types[variable]):
            return None  # graphql-core says what is wrong where such a variable is null
        arguments.append((argument.extensions["strawberry-definition"].python_name, variable))
    takes_self, info_name = resolver.self_parameter is not None, resolver.info_parameter.name
    method: Any = resolver.wrapped_func

    def resolve(source: object, info: Any, given: dict[str, Any]) -> Awaitable[Any]:
        given[info_name] = Info(_raw_info=info, _field=field)
        answer: Awaitable[Any] = method(source, **given) if takes_self else method(**given)
        return answer

    path = Path(None, node.alias.value if node.alias else node.name.value, parent.name)
    return Root(path, parent, definition, [FieldDetails(node, None)], resolve, tuple(arguments))


class Coerced(dict[str, Any]):
    """Variables that were coerced already, on their way to DocumentExecutor, with how to complete the document's values, and
    its only root field where it has just one."""

    outputs: Outputs | None = None
    root: Root | None = None


class DocumentExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes any document; given Coerced variables, one without its variable definitions. What the root fields come to is kept
    (`Context.answered`)."""

    outputs: Outputs | None = None
    root: Root | None = None

    @classmethod
    def build(  # type: ignore[override]
        cls, schema: GraphQLSchema, document: Any, root: Any, context: Any, raw_variable_values: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not isinstance(raw_variable_values, Coerced):
            return super().build(schema, document, root, context, raw_variable_values, *args, **kwargs)
        built: Any = super().build(schema, document, root, context, None, *args, **kwargs)
        if not isinstance(built, list):
            built.variable_values = VariableValues({}, raw_variable_values)
            built.outputs = raw_variable_values.outputs
            built.root = raw_variable_values.root
        return built

    def execute_operation(self, serially: bool | None = None) -> Any:
        return super().execute_operation(serially) if self.root is None else self._execute_root(self.root)

    async def _execute_root(self, root: Root) -> Any:
        """What graphql-core does with one root field, without looking for others and for its arguments."""
        return_type, (detail,) = root.definition.type, root.details
        completed: Any = None
        try:
            try:
                info = self.build_resolve_info(root.definition, [detail.node], root.parent, root.path)
                variables = self.variable_values.coerced
                given = {name: variables[variable] for name, variable in root.arguments if variable in variables}
                value = await root.resolve(self.root_value, info, given)
                completed = self.complete_value(return_type, root.details, info, root.path, value, None)
                if self.is_awaitable(completed):
                    completed = await completed
            except Exception as error:
                completed = None
                self.handle_field_error(error, return_type, root.details, root.path)
        except GraphQLError as error:
            self.collected_errors.add(error, None)
            return self.build_response(None)
        return self.build_response({root.path.key: completed})  # type: ignore[dict-item]

    def build_response(self, data: dict[str, Any] | None) -> Any:
        # Helpers and loaders hold who holds them: what was asked and answered would stay until the collector looks for such
        # rings, and to look at many large requests at once takes it half a second.
        self.async_helpers = None  # type: ignore[assignment]
        self.context_value.loaders.clear()
        return super().build_response(data)

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        if path.prev is None and not info.field_name.startswith("__"):
            self.context_value.answered[path.key] = result
        if self.outputs is not None and not isinstance(result, Exception):
            complete = self.outputs.find(return_type, field_details_list, self.collect_subfields)
            if complete is not None:
                try:
                    return complete(result, info)
                except Exception:  # noqa: S110  # nosec B110 - graphql-core comes to the same, and says where
                    pass
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)
