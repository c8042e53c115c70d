"""The coalition: its programmes, partners, stores, dated contracts and rates, and the port to partner systems."""
