"""Messages of graphql-transport-ws, before Strawberry's handler of the protocol sees them."""

from typing import Any


class Variables(dict[str, Any]):
    """An operation's variables, with what Strawberry's handler would not hand on: the id of a registered document, and what
    the message takes in memory."""

    document_id: str | None
    weight: int


def completed(message: dict[str, Any], weight: int) -> Any:
    """A message with all that its operation is made of in what is handed on."""
    payload = message.get("payload")
    if message.get("type") != "subscribe" or not isinstance(payload, dict):
        return message
    variables = Variables(payload.get("variables") or {})
    variables.document_id, variables.weight = payload.get("documentId") or None, weight
    return {**message, "payload": {**payload, "query": payload.get("query") or "", "variables": variables}}


def fits(message: Any) -> bool:
    """Whether a message has the shape that Strawberry's handler relies on."""
    if not isinstance(message, dict):
        return False
    if message.get("type") not in ("subscribe", "complete"):
        return True
    id, payload = message.get("id"), message.get("payload")
    if not isinstance(id, str) or not 0 < len(id) <= 100:
        return False
    return message["type"] == "complete" or (
        isinstance(payload, dict)
        and isinstance(payload.get("documentId") or payload.get("query"), str)
        and not (payload.get("documentId") and payload.get("query"))
        and isinstance(payload.get("variables"), dict | None)
        and isinstance(payload.get("operationName"), str | None)
    )
