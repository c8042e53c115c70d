"""Background jobs: what time does to points, what is sealed, what is moved on; each can run twice without harm."""
