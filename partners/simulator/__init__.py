"""A partner's system in a box, for demonstrations and tests."""
