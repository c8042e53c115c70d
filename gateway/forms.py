"""What forms and query strings hold: application/x-www-form-urlencoded (https://url.spec.whatwg.org/#urlencoded-parsing)."""

import re
from urllib.parse import parse_qsl, unquote_plus

_HALF = re.compile(r"%(?![0-9A-Fa-f]{2})")


def pairs_of(text: str, most: int) -> list[tuple[str, str]]:
    """Names and values, `most` of them, empty ones too. Raises ValueError, which says what the text has or holds."""
    if text.count("&") >= most:
        raise ValueError(f"has more than {most} names.")
    return parse_qsl(_checked(text), keep_blank_values=True)


def decoded(text: str) -> str:
    """One name or value. Raises ValueError, likewise."""
    return unquote_plus(_checked(text))


def _checked(text: str) -> str:
    """Every program that encodes writes ASCII, and a % as %25. Python would take what is neither for itself, and a time over it
    that is a hundred times that of other text."""
    if not text.isascii() or _HALF.search(text):
        raise ValueError("holds what is not encoded: what is not ASCII is written as %XX, and % as %25.")
    return text
