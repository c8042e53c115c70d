"""Rights before execution: which scopes each field needs, and what a whole document needs."""

from collections.abc import Iterable

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    visit,
)
from strawberry.federation.schema_directives import RequiresScopes

from gateway.graph import Public, StepUp

Need = tuple[frozenset[str], ...]
"""Any one of the sets suffices; no set at all: public."""

PUBLIC: Need = ()


class UndeclaredRight(TypeError):
    """A field of the schema neither requires a scope nor is declared public."""


def rights(schema: GraphQLSchema) -> dict[tuple[str, str], Need]:
    """What each field needs: its own directive, else its type's. Raises UndeclaredRight."""
    found: dict[tuple[str, str], Need] = {}
    roots = {schema.query_type, schema.mutation_type, schema.subscription_type}
    for type_ in schema.type_map.values():
        if not isinstance(type_, GraphQLObjectType | GraphQLInterfaceType) or type_.name.startswith("__"):
            continue
        of_type = None if type_ in roots else _declared(type_.extensions.get("strawberry-definition"))
        for name, field in type_.fields.items():
            need = _declared(field.extensions.get("strawberry-definition"))
            need = of_type if need is None else need
            if need is None and not (type_.name == "_Service" or name in ("_service", "_entities")):
                raise UndeclaredRight(f"{type_.name}.{name} declares neither scopes nor @public.")
            found[type_.name, name] = need or PUBLIC
    return found


def _declared(definition: object) -> Need | None:
    for directive in getattr(definition, "directives", None) or ():
        if isinstance(directive, RequiresScopes):
            return tuple(frozenset(map(str, alternative)) for alternative in directive.scopes)
        if isinstance(directive, Public):
            return PUBLIC
    return None


def step_ups(schema: GraphQLSchema) -> frozenset[tuple[str, str]]:
    """The fields that need a login with two factors, not long ago."""
    return frozenset(
        (type_.name, name)
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType)
        for name, field in type_.fields.items()
        if any(isinstance(d, StepUp) for d in getattr(field.extensions.get("strawberry-definition"), "directives", ()) or ())
    )


class _Collector(Visitor):
    def __init__(self, types: TypeInfo, rights: dict[tuple[str, str], Need]) -> None:
        super().__init__()
        self._types, self._rights = types, rights
        self.needs: dict[Need, str] = {}
        self.fields: set[str] = set()

    def enter_field(self, node: FieldNode, *_: object) -> None:
        parent = self._types.get_parent_type()
        if parent is None or node.name.value.startswith("__"):
            return
        self.fields.add(f"{parent.name}.{node.name.value}")
        need = self._rights.get((parent.name, node.name.value), PUBLIC)
        if need:
            self.needs.setdefault(need, f"{parent.name}.{node.name.value}")


def needs_of(document: DocumentNode, schema: GraphQLSchema, rights: dict[tuple[str, str], Need]) -> dict[Need, str]:
    """The distinct needs of a valid document, each with a field that has it."""
    types = TypeInfo(schema)
    collector = _Collector(types, rights)
    visit(document, TypeInfoVisitor(types, collector))
    return collector.needs


def fields_of(document: DocumentNode, schema: GraphQLSchema) -> set[str]:
    """Every field that a valid document asks for, as Type.field."""
    types = TypeInfo(schema)
    collector = _Collector(types, {})
    visit(document, TypeInfoVisitor(types, collector))
    return collector.fields


def root_fields(document: DocumentNode, operation: OperationDefinitionNode) -> tuple[str, ...]:
    """The names of the fields that an operation asks of its root, those in fragments too."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    found: list[str] = []

    def walk(selections: SelectionSetNode) -> None:
        for node in selections.selections:
            if isinstance(node, FieldNode):
                found.append(node.name.value)
            elif isinstance(node, InlineFragmentNode):
                walk(node.selection_set)
            elif isinstance(node, FragmentSpreadNode):
                walk(fragments[node.name.value].selection_set)

    walk(operation.selection_set)
    return tuple(dict.fromkeys(found))


def asks_for(document: DocumentNode, operation: OperationDefinitionNode, field: str) -> bool:
    """Whether an operation asks for a field of this name, be it in fragments."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}

    def within(selections: SelectionSetNode | None) -> bool:
        for node in selections.selections if selections is not None else ():
            if isinstance(node, FieldNode) and node.name.value == field:
                return True
            inner = fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            if within(getattr(inner, "selection_set", None)):
                return True
        return False

    return within(operation.selection_set)


_INTROSPECTION = frozenset({"__schema", "__type", "_service"})


def introspects(document: DocumentNode) -> bool:
    """Whether a document asks for the schema itself."""
    found = False

    class Finder(Visitor):
        def enter_field(self, node: FieldNode, *_: object) -> None:
            nonlocal found
            found = found or node.name.value in _INTROSPECTION

    visit(document, Finder())
    return found


def missing(needs: dict[Need, str], scopes: frozenset[str]) -> Iterable[tuple[str, Need]]:
    """The fields that these scopes do not open."""
    return ((field, need) for need, field in needs.items() if not any(alternative <= scopes for alternative in need))
