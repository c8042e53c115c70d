"""The demonstration: a year of real baskets, replayed over HTTP through the GraphQL API."""
