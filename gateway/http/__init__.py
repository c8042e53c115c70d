"""The HTTP door: GraphQL, the OAuth endpoints' pages, GraphiQL, health."""
