"""Trusted documents: what an app of members may send, registered with its client before, and named by its SHA-256."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime

from gateway.database import Database, Tx
from gateway.statements import load_queries

sql = load_queries(__file__, "documents.sql")

KNOWN_MAX = 2_000
DOCUMENT_ID = re.compile(r"sha256:[0-9a-f]{64}")


def document_id(text: str) -> str:
    """The id of a document: `sha256:` and the digest of its text in UTF-8, in lower case hex."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Documents:
    """The registered documents, as they are asked for; an id says its text for good, so that none is ever stale."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def text(self, client_id: str, id: str) -> str | None:
        """The document that a client has registered under an id. Raises DatabaseAway."""
        known = self._known.get((client_id, id))
        if known is not None or not DOCUMENT_ID.fullmatch(id):
            return known
        async with self._database.reading() as tx:
            found: str | None = await tx.value(sql.trusted_document, client_id=client_id, document_id=id)
        if found is not None:
            self._known[client_id, id] = found
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return found


async def register(tx: Tx, client_id: str, texts: Iterable[str], now: datetime) -> list[str]:
    """Register documents of a client; answers their ids. What was registered before stays, for apps that are not updated."""
    texts = list(texts)
    ids = [document_id(text) for text in texts]
    await tx.run(sql.store_documents, client_id=client_id, ids=ids, texts=texts, now=now)
    return ids
