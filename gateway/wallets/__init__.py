"""Wallets: a member's points in one programme, as they stand, as they stood, and where each point came from."""
