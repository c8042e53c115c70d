"""Transfers: points that one member gives to another."""
