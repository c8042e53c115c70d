"""Redemption: points spent at a partner."""
