"""A GraphQL loyalty gateway for coalitions of merchants."""
