"""What members did: every transaction that moved points, of whatever slice."""
