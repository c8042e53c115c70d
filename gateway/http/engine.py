"""Runs GraphQL documents: parse and validate once a document, check rights, execute, mask what was not expected."""

from asyncio import Semaphore
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from inspect import isawaitable
from typing import Any, TypeVar

import structlog
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    execute,
    get_named_type,
    get_operation_ast,
    parse,
    validate,
)
from graphql.execution import (
    Executor,
    create_source_event_stream,
    execute_subscription_event,
    map_source_to_response_event,
)
from strawberry.federation import Schema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway.access.caller import Caller
from gateway.context import Context
from gateway.http.cost import COST_MAX, OperationCost, compile_costs
from gateway.http.errors import DocumentRefused, brief, masked
from gateway.http.executor import Coerced, DocumentExecutor, Root, compile_root
from gateway.http.guard import Need, asks_for, fields_of, introspects, missing, needs_of, rights, root_fields, step_ups
from gateway.http.shape import NAME_MAX, check_shape
from gateway.http.suggestions import suggest_quickly
from gateway.inputs import Coercers, NotPlain, coerce_variables, compile_variables
from gateway.outputs import Outputs

# Of free documents, which leave some 120 bytes in memory for each; and what is compiled of a selection, in each place that a
# fragment brings it to, is worth as many.
REMEMBERED_CHARS, CHARS_OF_SELECTION = 1_000_000, 20
REMEMBERED_MAX_CHARS = 8_000
REGISTERED_MAX = 1_000
DOCUMENT_MAX_CHARS = 64_000
TOKENS_MAX = 2_000
ERRORS_MAX = 5
# graphql-core writes the whole input down for each error in it, before it is cut.
COERCION_ERRORS_MAX = 2
STEP_UP_SECONDS = 15 * 60

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is valid against the schema, and the scopes it needs.

    `bare` is the document without variable definitions, to be run once an operation's `coercers` have done their work;
    `outputs` completes its values, unless directives make what it selects change from one execution to the next; with it
    `roots` has what asks just one field of its root; `asks_of_people`: for what is known of members as people;
    `asks_partners`, by operation: for what partners' own systems know; `size`: as how many characters of text it counts among
    what is remembered.
    """

    document: DocumentNode
    needs: dict[Need, str]
    bare: DocumentNode
    coercers: dict[str | None, Coercers | None]
    outputs: Outputs | None
    roots: dict[str | None, Root | None]
    steps_up: str | None
    asks_of_people: bool
    asks_partners: dict[str | None, bool]
    introspects: bool
    root_fields: dict[str | None, tuple[str, ...]]
    variables: dict[str | None, frozenset[str]]
    costs: dict[str | None, OperationCost]
    size: int


class ScopeMissing(Exception):
    """The caller's token does not open a field of the document; the text names it and what would."""


class StepUpNeeded(Exception):
    """The caller's login is too long ago, or was with one factor, for a field of the document."""


class Engine:
    """The schema with its caches; one a process."""

    def __init__(self, schema: Schema) -> None:
        suggest_quickly()
        self._schema = schema._schema
        self.rights = rights(self._schema)
        self._step_ups = step_ups(self._schema)
        self._free: OrderedDict[str, Prepared] = OrderedDict()
        self._registered: OrderedDict[str, Prepared] = OrderedDict()
        self._free_chars = 0

    def remembers(self, text: str) -> bool:
        """Whether a free document needs to be read no more."""
        return text in self._free

    def prepare(self, text: str, explains: bool = True, registered: bool = False) -> Prepared:
        """Parse and validate, or recall having done so; `explains`: errors may suggest names of the schema.

        What apps have `registered` is remembered apart, at any length, where no free document can push it out.
        Raises DocumentRefused.
        """
        remembered = self._registered if registered else self._free
        known = remembered.get(text)
        if known is not None:
            remembered.move_to_end(text)
            return known
        if len(text) > DOCUMENT_MAX_CHARS:
            raise DocumentRefused([GraphQLError(f"The document is longer than {DOCUMENT_MAX_CHARS} characters.")])
        try:
            document = parse(text, max_tokens=TOKENS_MAX, no_location=False)
        except GraphQLError as error:
            raise DocumentRefused([error]) from None
        except RecursionError:
            raise DocumentRefused([GraphQLError("The document is nested too deeply.")]) from None
        try:
            selections = check_shape(document)
        except GraphQLError as error:
            raise DocumentRefused([error]) from None
        errors = validate(self._schema, document, max_errors=ERRORS_MAX, hide_suggestions=not explains)
        if errors:
            raise DocumentRefused([brief(error) for error in errors])
        try:
            size = len(text) + CHARS_OF_SELECTION * selections
            prepared = self._compile(document, Outputs() if "@" not in text else None, size)
        except GraphQLError as error:
            raise DocumentRefused([error]) from None
        if registered:
            self._registered[text] = prepared
            if len(self._registered) > REGISTERED_MAX:
                self._registered.popitem(last=False)
        elif len(text) <= REMEMBERED_MAX_CHARS:
            self._free[text] = prepared
            self._free_chars += prepared.size
            while self._free_chars > REMEMBERED_CHARS:
                self._free_chars -= self._free.popitem(last=False)[1].size
        return prepared

    def _compile(self, document: DocumentNode, outputs: Outputs | None, size: int) -> Prepared:
        operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]

        def by_name(compiled: Callable[[OperationDefinitionNode], T]) -> dict[str | None, T]:
            """What each operation compiles to, under its name, and where it is the only one without a name too."""
            found = {o.name.value if o.name else None: compiled(o) for o in operations}
            return found | ({None: next(iter(found.values()))} if len(operations) == 1 else {})

        bare = replace(
            document,
            definitions=tuple(
                replace(d, variable_definitions=()) if isinstance(d, OperationDefinitionNode) else d for d in document.definitions
            ),
        )
        asked = [tuple(field.split(".")) for field in fields_of(document, self._schema)]
        return Prepared(
            document=document,
            needs=needs_of(document, self._schema, self.rights),
            bare=bare,
            coercers=by_name(lambda o: compile_variables(self._schema, o)),
            outputs=outputs,
            roots=by_name(lambda o: compile_root(self._schema, o) if outputs else None),
            steps_up=next((".".join(field) for field in asked if field in self._step_ups), None),
            asks_of_people=any(self._is_of_people(type_, field) for type_, field in asked),
            asks_partners=by_name(lambda o: asks_for(document, o, "nativeBalance")),
            introspects=introspects(document),
            root_fields=by_name(lambda o: root_fields(document, o)),
            variables=by_name(lambda o: frozenset(d.variable.name.value for d in o.variable_definitions or ())),
            costs=by_name(compile_costs(self._schema, document)),
            size=size,
        )

    def _is_of_people(self, type_: str, field: str) -> bool:
        """Whether a field tells of a person, and be it that something is known of it."""
        found = getattr(self._schema.type_map.get(type_), "fields", {}).get(field)
        return type_ == "Person" or (found is not None and get_named_type(found.type).name == "Person")

    def operation(self, prepared: Prepared, name: str | None, streamed: bool = False) -> OperationDefinitionNode:
        """The operation to run. Raises DocumentRefused when the document does not say which, and for a subscription unless
        the answer is `streamed`."""
        found = get_operation_ast(prepared.document, name)
        if found is None:
            which = f"There is no operation {name[:NAME_MAX]!r}." if name else "Name the operation to run in operationName."
            raise DocumentRefused([GraphQLError(which)])
        if found.operation is OperationType.SUBSCRIPTION and not streamed:
            told = "A subscription is answered as text/event-stream, or over a WebSocket (graphql-transport-ws)."
            raise DocumentRefused([GraphQLError(told)])
        return found

    def check_rights(self, prepared: Prepared, caller: Caller) -> None:
        """Raises ScopeMissing."""
        for field, need in missing(prepared.needs, caller.scopes):
            wanted = " or ".join(" and ".join(sorted(alternative)) for alternative in need)
            raise ScopeMissing(f"{field} needs the scope {wanted}.")

    def check_step_up(self, prepared: Prepared, caller: Caller, now: datetime) -> None:
        """Raises StepUpNeeded."""
        if prepared.steps_up is None:
            return
        if caller.strong_since is None or now.timestamp() - caller.strong_since > STEP_UP_SECONDS:
            raise StepUpNeeded(
                f"{prepared.steps_up} needs a login with two factors within the last {STEP_UP_SECONDS // 60} minutes: log in "
                "again, with a one-time code."
            )

    def check_cost(
        self, prepared: Prepared, variables: dict[str, Any] | None, name: str | None, lengths: Mapping[str, int]
    ) -> int:
        """The cost of an operation, given how long the coalition's lists are. Raises DocumentRefused where that is more than
        COST_MAX."""
        cost = prepared.costs[name](variables or {}, lengths)
        if cost > COST_MAX:
            told = f"The operation costs {cost}, and {COST_MAX} at most are run. Ask for fewer items at once."
            raise DocumentRefused([GraphQLError(told, extensions={"code": "COST_TOO_HIGH"})])
        return cost

    async def run(
        self, prepared: Prepared, variables: dict[str, Any] | None, name: str | None, context: Context
    ) -> ExecutionResult:
        """Execute; errors that were not meant for the caller are masked and logged under a correlation id.

        Raises DatabaseAway, Busy, Stuck, PostedNothing.
        """
        document, values = prepared.document, variables
        coercers = prepared.coercers.get(name)
        if coercers is not None:
            try:
                coerced = Coerced(coerce_variables(coercers, variables or {}))
                coerced.outputs, coerced.root = prepared.outputs, prepared.roots.get(name)
                document, values = prepared.bare, coerced
            except NotPlain:
                pass  # graphql-core finds the same, and says where
        result = execute(
            self._schema,
            document,
            variable_values=values,
            operation_name=name,
            context_value=context,
            executor_class=DocumentExecutor,
            max_coercion_errors=COERCION_ERRORS_MAX,
            hide_suggestions=not knows_schema(context.caller),
        )
        if not isinstance(result, ExecutionResult):
            result = await result
        return masked(result)

    async def subscribe(
        self, prepared: Prepared, variables: dict[str, Any] | None, name: str | None, context: Context, turn: Semaphore
    ) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription, one an event, each made in a turn; one with errors alone if it cannot begin.

        Raises DatabaseAway, Busy, Stuck, PostedNothing.
        """
        executor = StrawberryGraphQLCoreExecutionContext.build(
            self._schema,
            prepared.document,
            context_value=context,
            raw_variable_values=variables,
            operation_name=name,
            max_coercion_errors=COERCION_ERRORS_MAX,
            hide_suggestions=not knows_schema(context.caller),
        )
        if isinstance(executor, list):
            yield masked(ExecutionResult(None, executor))
            return
        events = create_source_event_stream(executor)
        if isawaitable(events):
            events = await events
        if isinstance(events, ExecutionResult):
            yield masked(events)
            return

        async def show(event: Executor[Any]) -> ExecutionResult:
            async with turn:
                result = execute_subscription_event(event)
                return await result if isawaitable(result) else result

        source = map_source_to_response_event(executor, events, show)
        try:
            async for result in source:
                yield masked(result)
        except Exception as error:
            yield masked(ExecutionResult(None, [GraphQLError(str(error), original_error=error)]))
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()


def knows_schema(caller: Caller) -> bool:
    """Whether a caller is told the schema, and errors may suggest names of it."""
    return caller.kind in ("partner", "operator")
