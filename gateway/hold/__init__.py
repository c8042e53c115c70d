"""Holds: points set aside for a redemption to come."""
