"""graphql-core's executor, with what was compiled for a document put in its way."""

from typing import Any

from graphql import GraphQLSchema
from graphql.execution.values import VariableValues
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway.outputs import Outputs


class Coerced(dict[str, Any]):
    """Variables that were coerced already, on their way to CompiledExecutor, with how to complete the document's values."""

    outputs: Outputs | None = None


class CompiledExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes a document without its variable definitions, given Coerced variables."""

    outputs: Outputs | None = None

    @classmethod
    def build(  # type: ignore[override]
        cls, schema: GraphQLSchema, document: Any, root: Any, context: Any, raw_variable_values: Any, *args: Any, **kwargs: Any
    ) -> Any:
        built: Any = super().build(schema, document, root, context, None, *args, **kwargs)
        if not isinstance(built, list):
            built.variable_values = VariableValues({}, raw_variable_values)
            built.outputs = raw_variable_values.outputs
        return built

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        if self.outputs is not None and not isinstance(result, Exception):
            complete = self.outputs.find(return_type, field_details_list, self.collect_subfields)
            if complete is not None:
                try:
                    return complete(result, info)
                except Exception:  # noqa: S110  # nosec B110 - graphql-core comes to the same, and says where
                    pass
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)
