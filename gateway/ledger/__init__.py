"""The ledger: posting, lots, wallets, the activity of a member, and the proof that all of it adds up."""
