"""Events: what happened, as it was written to the outbox in the transaction that made it happen; read by cursor."""
