"""What must be true of a request before it runs: who calls, what it may do, what it costs, what the audit log holds of it."""

from dataclasses import dataclass, replace
from typing import Any

from graphql import OperationDefinitionNode, OperationType

from gateway.access.audit import DETAILS_MAX_BYTES, Deed
from gateway.access.caller import PUBLIC, Caller
from gateway.access.tokens import TWO_FACTORS
from gateway.coalition.catalogue import Coalition
from gateway.context import Context, Doors
from gateway.http.budget import Budgets
from gateway.http.deeds import cost_of_noting, deed_of, is_watched
from gateway.http.documents import Documents
from gateway.http.engine import DOCUMENT_MAX_CHARS, STEP_UP_SECONDS, Engine, Prepared, ScopeMissing, StepUpNeeded, knows_schema
from gateway.http.errors import DocumentRefused
from gateway.http.refusing import RequestRefused, refusing_what_is_away
from gateway.http.shares import Turns
from gateway.http.wire import SMALL_BODY_BYTES

READING_COST = 5
"""Points a character of a document that this process has not read yet, whether it is accepted or not."""

BYTES_FOR_A_POINT = 100
# It is looked for in the database each time.
UNKNOWN_DOCUMENT_COST = 10


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may run: its operation is known, its caller has the rights, its cost is allowed."""

    prepared: Prepared
    variables: dict[str, Any] | None
    operation_name: str | None
    operation: OperationDefinitionNode
    caller: Caller
    context: Context
    points: int
    """What it does costs, without what it fills in the audit log."""
    cost: dict[str, Any]
    deed: Deed | None  # of what the audit log watches

    @property
    def is_mutation(self) -> bool:
        return self.operation.operation is OperationType.MUTATION


class Admission:
    """Checks all that can be checked of a request before it is executed."""

    def __init__(self, engine: Engine, doors: Doors, budgets: Budgets, turns: Turns) -> None:
        self._engine, self._doors, self._budgets, self._turns = engine, doors, budgets, turns
        self._documents = Documents(doors.database)

    async def charge_for_reading(self, caller: Caller, size: int) -> None:
        """What is large takes long to read, whatever it asks for. Raises RequestRefused."""
        if size > SMALL_BODY_BYTES:
            with refusing_what_is_away():
                await self._budgets.charge(caller, size // BYTES_FOR_A_POINT)

    async def admit(self, caller: Caller, asked: dict[str, Any], method: str, streamed: bool = False) -> Admitted:
        """Admit a request when it is its party's turn, or say why not. Raises RequestRefused, DocumentRefused."""
        async with self._turns.at_the_entrance(caller):
            return await self._admit(caller, asked, method, streamed)

    async def _admit(self, caller: Caller, asked: dict[str, Any], method: str, streamed: bool) -> Admitted:
        name, variables = asked.get("operationName"), asked.get("variables")
        with refusing_what_is_away():
            text = await self._text(caller, asked)
            registered = asked.get("documentId") is not None
            if not registered and not self._engine.remembers(text):
                await self._budgets.charge(caller, min(len(text), DOCUMENT_MAX_CHARS) * READING_COST)
            prepared = self._engine.prepare(text, knows_schema(caller), registered)
        if prepared.introspects and not knows_schema(caller):
            raise RequestRefused(403, "FORBIDDEN", "The schema is told to partners and operators; schema.graphql holds it too.")
        operation = self._engine.operation(prepared, name, streamed)
        if variables and not variables.keys() <= prepared.variables[name]:
            # Nothing but what the operation declares: it does nothing with anything else.
            variables = {each: value for each, value in variables.items() if each in prepared.variables[name]}
        if method == "GET" and operation.operation is OperationType.MUTATION:
            raise RequestRefused(405, "METHOD_NOT_ALLOWED", "Send mutations with POST.", {"Allow": "POST"})
        deed = deed_of(caller, prepared, operation, variables) if is_watched(caller, prepared) else None
        noting = cost_of_noting(deed) if deed is not None else 0
        with refusing_what_is_away():
            coalition = await self._doors.catalogue.current()
        try:
            self._check_rights(prepared, caller)
            _check_suspended(coalition, caller)
            if deed is not None and deed.size > DETAILS_MAX_BYTES:
                told = f"The audit log keeps this whole, document and variables: {DETAILS_MAX_BYTES} bytes, not nested deeply."
                raise RequestRefused(413, "BODY_TOO_LARGE", told)
            points = self._engine.check_cost(prepared, variables, name, coalition.lengths)
        except (RequestRefused, DocumentRefused) as no:
            if deed is not None:  # paid for like all that fills the log; what comes too early is not noted, and does nothing
                with refusing_what_is_away():
                    await self._budgets.charge(caller, noting)
                    await self._doors.audit.note(replace(deed, result=no.code))
            raise
        with refusing_what_is_away():
            cost = await self._budgets.charge(caller, points + noting)
        context = Context(caller, coalition, self._doors)
        return Admitted(prepared, variables, name, operation, caller, context, points, cost, deed)

    async def _text(self, caller: Caller, asked: dict[str, Any]) -> str:
        """The document: as it was sent, or registered under the id that was sent. Raises RequestRefused, DatabaseAway."""
        id = asked.get("documentId")
        if caller is PUBLIC:
            raise who_is_it()
        if id is None:
            if caller.is_member_itself:
                told = "Apps of members send the id of a registered document: documentId (docs/integrating.md)."
                raise RequestRefused(403, "DOCUMENT_NOT_TRUSTED", told)
            query: str = asked["query"]
            return query
        text = await self._documents.text(caller.client_id, id)
        if text is None:
            await self._budgets.charge(caller, UNKNOWN_DOCUMENT_COST)
            told = f"The client {caller.client_id!r} has no document {id[:80]!r}; `gateway documents register` prints the ids."
            raise RequestRefused(404, "DOCUMENT_UNKNOWN", told)
        return text

    def _check_rights(self, prepared: Prepared, caller: Caller) -> None:
        try:
            self._engine.check_rights(prepared, caller)
        except ScopeMissing as error:
            headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            raise RequestRefused(403, "FORBIDDEN", str(error), headers) from None
        try:
            self._engine.check_step_up(prepared, caller, self._doors.clock.now())
        except StepUpNeeded as error:
            challenge = (
                f'Bearer error="insufficient_user_authentication", acr_values="{TWO_FACTORS}", max_age="{STEP_UP_SECONDS}"'
            )
            raise RequestRefused(401, "STEP_UP_NEEDED", str(error), {"WWW-Authenticate": challenge}) from None


def _check_suspended(coalition: Coalition, caller: Caller) -> None:
    """Raises RequestRefused for a partner that is suspended, in whoever's name it calls."""
    partner_id = caller.acting_partner_id or caller.partner_id
    partner = coalition.partners.get(partner_id) if partner_id is not None else None
    if partner is not None and partner.status != "active":
        raise RequestRefused(403, "FORBIDDEN", f"{partner.name} is suspended.")


def who_is_it() -> RequestRefused:
    headers = {"WWW-Authenticate": "Bearer", "Connection": "close"}
    return RequestRefused(401, "UNAUTHENTICATED", "Send a bearer token.", headers)
