"""What callers do, for the audit log: which requests it holds, what they are called there, and what that costs."""

from collections.abc import Collection
from typing import Any

from graphql import ExecutionResult, OperationDefinitionNode, print_ast, separate_operations

from gateway.access.audit import ASKED, DETAILS_MAX_BYTES, Deed
from gateway.access.caller import Caller
from gateway.graph import Payload
from gateway.http.engine import Prepared
from gateway.ids import named_in, show

ABOUT_OF_PARTNERS = 200
# Of every NOTED_AT_ONCE_BYTES that a deed fills in the audit log, which are kept for ever.
NOTING_COST = 1_000
NOTED_AT_ONCE_BYTES = 4 * 1024


def deed_of(
    caller: Caller, prepared: Prepared, operation: OperationDefinitionNode, variables: dict[str, Any] | None
) -> Deed:
    """What a caller asks for, for the audit log: by its fields, with the document and the variables, about whom these speak."""
    name = operation.name.value if operation.name else None
    action = f"{operation.operation.value} {' '.join(prepared.root_fields[name])}"
    # With the fragments that it spreads: arguments may stand there.
    document = print_ast(separate_operations(prepared.document)[name or ""])
    details: dict[str, Any] = {"variables": variables or {}, "document": document}
    about = named_in(variables, document)
    if caller.kind == "operator":
        return Deed("operator", caller.subject_id, caller.client_id, action, ASKED, caller.token_id, about, details)
    actor = caller.subject_id
    if caller.acting_partner_id is not None:
        assert caller.subject_id is not None
        actor = caller.acting_partner_id
        details |= {"member": str(caller.subject_id)}
        about.insert(0, show("mem", caller.subject_id))
    return Deed("partner", actor, caller.client_id, action, ASKED, caller.token_id, about[:ABOUT_OF_PARTNERS], details)


def named_in_answer(caller: Caller, result: ExecutionResult) -> list[str]:
    """The ids that an answer tells of; to a partner, so many of them."""
    named = named_in(result.data)
    return named if caller.kind == "operator" else named[:ABOUT_OF_PARTNERS]


def only_introspects(prepared: Prepared, operation_name: str | None) -> bool:
    """Whether an operation asks for nothing but the schema, which GraphiQL does again and again."""
    return all(name.startswith("__") for name in prepared.root_fields[operation_name])


def is_watched(caller: Caller, prepared: Prepared) -> bool:
    """What stands in the audit log: what operators do, and partners in the name of members or with what is known of people."""
    of_partner = caller.acting_partner_id is not None or (caller.kind == "partner" and prepared.asks_of_people)
    return caller.kind == "operator" or of_partner


def cost_of_noting(deed: Deed) -> int:
    """Points for what a deed fills in the log."""
    return NOTING_COST * -(-min(deed.size, DETAILS_MAX_BYTES) // NOTED_AT_ONCE_BYTES)


def result_of(result: ExecutionResult, answered: Collection[Any]) -> str:
    """ok, or the codes of errors and of refusals in payloads, with an ok where something was done all the same. Who asks chooses
    what the result shows, and so it is not read: `answered` are the root fields' own values."""
    if not answered and not result.errors:
        return "NOTHING"  # all of it was skipped
    codes = {str((error.extensions or {}).get("code", "ERROR")) for error in result.errors or ()}
    for value in answered:
        for each in value if isinstance(value, list) else [value]:
            refusals = each.errors if isinstance(each, Payload) else []
            codes |= {refusal.code.value for refusal in refusals}
            codes |= {"ok"} if each is not None and not isinstance(each, Exception) and not refusals else set()
    return " ".join(sorted(codes)) or "ok"
