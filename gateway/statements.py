"""Named queries: written in the slices' `.sql` files (aiosql), loaded by name, with named parameters."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
from aiosql.adapters.asyncpg import AsyncPGAdapter
from aiosql.query_loader import QueryLoader


class Statement:
    """One named query: its text with numbered placeholders, the names they stand for, and the sentence over it."""

    __slots__ = ("_literals", "name", "parameters", "sentence", "text")

    def __init__(self, name: str, text: str, parameters: tuple[str, ...], sentence: str) -> None:
        self.name, self.parameters, self.sentence = name, parameters, sentence
        self.text, written = LITERAL.subn(r"$\1::text::\2", text)
        places = {int(place) for place, _ in LITERAL.findall(text)}
        self._literals = tuple(place - 1 for place in sorted(places))
        if written != sum(len(re.findall(rf"\${place}\b", text)) for place in places):
            raise TypeError(f"{name}: an array that is cast in one place is cast wherever it is used")

    def arguments(self, given: dict[str, Any]) -> list[Any]:
        if len(given) != len(self.parameters):
            raise TypeError(f"{self.name} takes {self.parameters}, not {tuple(given)}")
        values = [given[name] for name in self.parameters]
        for place in self._literals:
            values[place] = _literal(values[place])
        return values


# asyncpg asks of each element of an array, several times, whether it is an array itself: that took a sixth of the time of
# a batch of purchases. Arrays are therefore sent as PostgreSQL's array literals; those of ids and numbers orjson writes.
BYTES_IN_HEX = "\\x"
LITERAL = re.compile(r"\$(\d+)::((?:uuid|smallint|int|bigint|text|bytea)\[\])")


def _literal(values: Sequence[Any] | None) -> str | None:
    """The literal of an array of ids, whole numbers, texts or bytes, with null for None."""
    if not isinstance(values, list | tuple | None):
        raise TypeError(f"{type(values).__name__} is no array")
    if values is None:
        return None
    first = next((value for value in values if value is not None), None)
    if isinstance(first, str):
        return f"{{{','.join(map(_quoted, values))}}}"
    if isinstance(first, bytes):
        return f"{{{','.join([_quoted(None if value is None else BYTES_IN_HEX + value.hex()) for value in values])}}}"
    return f"{{{orjson.dumps(values, default=str).decode()[1:-1]}}}"


def _quoted(text: str | None) -> str:
    return "null" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def load_queries(beside: str, file: str = "queries.sql") -> Any:
    """The named queries of the SQL file beside a module; `sql = load_queries(__file__)`."""
    adapter: Any = AsyncPGAdapter()  # type: ignore[no-untyped-call]
    loader = QueryLoader(adapter, None, attribute="__", mandatory_parameters=False)
    found = loader.load_query_data_from_file(Path(beside).parent / file)
    return SimpleNamespace(
        **{
            q.query_name: Statement(
                q.query_name, q.sql, tuple(adapter.var_sorted[q.query_name]), " ".join(q.doc_comments.split())
            )
            for q in found
        }
    )
