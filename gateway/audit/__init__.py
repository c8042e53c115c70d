"""The audit log, shown."""
