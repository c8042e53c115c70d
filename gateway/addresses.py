"""Addresses that others name, taken apart."""

from urllib.parse import SplitResult, urlsplit

ADDRESS_MAX_CHARS = 2_000
# None of RFC 3986; a browser reads a backslash as a slash.
NOWHERE = frozenset('"<>\\^`{|}')


def split_address(text: str) -> SplitResult:
    """As urlsplit, for what is short and plain: it works on names beyond ASCII for a time that grows with the square of their
    length, and takes no notice of blanks and line ends, which whoever calls there trips over. Raises ValueError for all else."""
    if len(text) > ADDRESS_MAX_CHARS or not all("!" <= char <= "~" and char not in NOWHERE for char in text):
        raise ValueError(f"An address is plain ASCII of {ADDRESS_MAX_CHARS} characters at most; others are written as %XX.")
    return urlsplit(text)
