"""Members: the shared identity of a person, and the memberships by which partners know it."""
