"""What a document may look like: how deep, how long with its fragments, how often under other names."""

from collections import Counter

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

DEPTH_MAX = 20
REPEATS_MAX = 12
FRAGMENTS_MAX = 50
ALIASES_MAX = 30
DIRECTIVES_MAX = 30
SELECTIONS_MAX = 5_000
# Names are repeated for every item of an answer.
NAME_MAX = 64
OPERATIONS_MAX = 20
# How often an operation asks for the schema: it is told in one piece, while nobody else has a turn.
TOLD_MAX = 2
OF_SCHEMA = {"__schema": "__Schema", "__type": "__Type"}


def check_shape(document: DocumentNode) -> int:
    """Answers how many selections a document comes to with its fragments. Raises GraphQLError for an operation that is too deep,
    repeats itself, or gives too many other names.

    It comes before validation, whose time grows with the square of how often a field is repeated, in fragments that nothing
    spreads too: so these, and those that spread themselves, are refused here. What is unknown is left to validation.
    """
    fragments = fragments_of(document)
    defined = sum(isinstance(each, FragmentDefinitionNode) for each in document.definitions)
    if defined > FRAGMENTS_MAX:
        raise GraphQLError(f"The document has more than {FRAGMENTS_MAX} fragments.")
    if defined > len(fragments):
        raise GraphQLError("Two fragments have the same name.")
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    if len(operations) > OPERATIONS_MAX:
        raise GraphQLError(f"The document has more than {OPERATIONS_MAX} operations.")
    walk = _Walk(fragments)
    for operation in operations:
        walk.through(operation)
    if unused := sorted(fragments.keys() - walk.spread):
        raise GraphQLError(f"The fragment {unused[0][:NAME_MAX]} is spread nowhere.")
    return walk.visited


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    """A document's fragments by their names."""
    return {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}


class _Walk:
    """A walk through a document's operations, and through its fragments wherever they are spread. Raises GraphQLError at the
    first thing that is too much."""

    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self.visited = 0
        self.spread: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._aliases = self._directives = self._told = 0
        self._asked: Counter[tuple[str, ...]] = Counter()

    def through(self, operation: OperationDefinitionNode) -> None:
        """Selections are counted over all operations, everything else in each."""
        self._begin()
        if operation.name is not None:
            _check_name(operation.name.value)
        self._selections(operation.selection_set, 1, (), frozenset(), of_schema=False)

    def _selections(
        self, selections: SelectionSetNode, depth: int, place: tuple[str, ...], within: frozenset[str], of_schema: bool
    ) -> None:
        """`place` are the names on the way here, `within` the fragments."""
        if depth > DEPTH_MAX:
            raise GraphQLError(f"The document is nested more than {DEPTH_MAX} levels deep.")
        for node in selections.selections:
            self.visited += 1
            if self.visited > SELECTIONS_MAX:  # fragments that spread fragments twice each grow without end
                raise GraphQLError(f"The document comes to more than {SELECTIONS_MAX} selections with its fragments.")
            self._directives += len(node.directives or ())
            if self._directives > DIRECTIVES_MAX:
                raise GraphQLError(f"The document has more than {DIRECTIVES_MAX} directives.")
            if isinstance(node, FieldNode):
                self._field(node, depth, place, within, of_schema)
            elif isinstance(node, InlineFragmentNode):
                self._selections(node.selection_set, depth, place, within, of_schema)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name in within:
                    raise GraphQLError(f"The fragment {name[:NAME_MAX]} spreads itself.")
                if name in self._fragments:
                    self.spread.add(name)
                    self._selections(self._fragments[name].selection_set, depth, place, within | {name}, of_schema)

    def _field(self, node: FieldNode, depth: int, place: tuple[str, ...], within: frozenset[str], of_schema: bool) -> None:
        if node.alias is not None:
            self._aliases += 1
            if self._aliases > ALIASES_MAX:
                raise GraphQLError(f"The document gives more than {ALIASES_MAX} other names to fields.")
            _check_name(node.alias.value)
            if of_schema:
                raise GraphQLError("What is told of the schema has no other names.")
        self._told += node.name.value in OF_SCHEMA
        if self._told > TOLD_MAX:
            raise GraphQLError(f"The document asks for __schema and __type more than {TOLD_MAX} times.")
        here = (*place, (node.alias or node.name).value)
        self._asked[here] += 1
        if self._asked[here] > REPEATS_MAX:
            raise GraphQLError(f"The document asks for {'.'.join(here)} more than {REPEATS_MAX} times.")
        if node.selection_set:
            self._selections(node.selection_set, depth + 1, here, within, of_schema or node.name.value in OF_SCHEMA)


def _check_name(name: str) -> None:
    if len(name) > NAME_MAX:
        raise GraphQLError(f"The name {name[:NAME_MAX]}... is longer than {NAME_MAX} characters.")
