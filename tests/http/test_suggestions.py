"""Suggestions: those of graphql-core itself, found in a part of the time."""

import random
from importlib.util import find_spec, module_from_spec
from time import perf_counter
from typing import Any

from graphql import parse, validate
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.engine import Engine
from gateway.http.suggestions import Distance
from gateway.schema import create_schema

NAMES = st.text("abAB_1", max_size=12)


def graphql_cores_own() -> Any:
    """The module that finds suggestions, as it is without us."""
    spec = find_spec("graphql.pyutils.suggestion_list")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OWN = graphql_cores_own()


@given(NAMES, NAMES, st.integers(0, 14))
def test_a_distance_is_what_graphql_core_says(name: str, option: str, threshold: int) -> None:
    assert Distance(name).measure(option, threshold) == OWN.LexicalDistance(name).measure(option, threshold)


def test_a_document_of_types_that_are_not_there_costs_a_part_of_what_it_costs_graphql_core() -> None:
    schema = create_schema()
    Engine(schema)
    drawn = random.Random(7)  # noqa: S311 - the same names each time
    names = ["".join(drawn.choices("PartneConcid", k=16)) for _ in range(5)]
    document = parse("{ programmes { code " + " ".join(f"... on {name} {{ code }}" for name in names) + " } }")

    def ours() -> float:
        begun = perf_counter()
        errors = validate(schema._schema, document, max_errors=5)
        taken = perf_counter() - begun
        assert "Unknown type" in errors[0].message
        return taken

    def its_own() -> float:
        begun = perf_counter()
        for name in names:
            OWN.suggestion_list(name, list(schema._schema.type_map))
        return perf_counter() - begun

    assert min(ours() for _ in range(5)) < min(its_own() for _ in range(5)) / 3  # though it validates, too
