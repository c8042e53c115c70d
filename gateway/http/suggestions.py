"""The names of the schema that an error suggests ("Did you mean ...?"), found in microseconds.

graphql-core compares a name with each of the schema's in Python: ten milliseconds for a type that is not there, in which nobody
else has a turn. rapidfuzz answers the same distances a hundred times as fast.
"""

from importlib import import_module

from rapidfuzz.distance import OSA


class Distance:
    """How far a name is from others, as graphql-core's `LexicalDistance` says: what has to be inserted, deleted, replaced, or
    swapped with its neighbour (optimal string alignment); other capitals are one change in all."""

    def __init__(self, name: str) -> None:
        self._name, self._lower = name, name.lower()

    def measure(self, option: str, threshold: int) -> int | None:
        """None where it is more than `threshold`."""
        if option == self._name:
            return 0
        lower = option.lower()
        if lower == self._lower:
            return 1
        distance: int = OSA.distance(self._lower, lower, score_cutoff=threshold)
        return distance if distance <= threshold else None


def suggest_quickly() -> None:
    """Have graphql-core measure with `Distance`."""
    import_module("graphql.pyutils.suggestion_list").LexicalDistance = Distance  # type: ignore[attr-defined]
