"""Conversion: dated rates between programmes, quotes, and the exchange itself."""
