"""Addresses that others name, taken apart."""

from urllib.parse import SplitResult, urlsplit

ADDRESS_MAX_CHARS = 2_000
# None of RFC 3986; a browser reads a backslash as a slash.
NOWHERE = frozenset('"<>\\^`{|}')


def split_address(text: str) -> SplitResult:
    """As urlsplit, for what is short and plain: it works on names beyond ASCII for a time that grows with the square of their
    length, and takes no notice of blanks and line ends, which whoever calls there trips over. Raises ValueError for all else, and
    where the port is no number."""
    if len(text) > ADDRESS_MAX_CHARS or not all("!" <= char <= "~" and char not in NOWHERE for char in text):
        raise ValueError(f"An address is plain ASCII of {ADDRESS_MAX_CHARS} characters at most; others are written as %XX.")
    parts = urlsplit(text)
    _ = parts.port  # looked at by itself alone
    return parts


def is_base(text: str) -> bool:
    """Whether this is an address that others stand below: of HTTP or HTTPS, with a host, and without user, query and fragment."""
    try:
        parts = split_address(text)
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment and not text.endswith(("?", "#"))
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain
