"""What is encoded is read as it was, and what is not costs nobody's time."""

from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forms import decoded, pairs_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=10))
def test_pairs_and_texts_are_read_as_they_were(pairs: list[tuple[str, str]]) -> None:
    assert pairs_of(urlencode(pairs), 10) == pairs
    assert [decoded(quote_plus(value)) for _, value in pairs] == [value for _, value in pairs]


@pytest.mark.parametrize("text", ["%", "a%4", "%zz", "%%41", "é", "100%"])
def test_what_is_not_encoded_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="%25"):
        decoded(text)
    with pytest.raises(ValueError, match="%25"):
        pairs_of(f"a={text}", 10)


def test_more_pairs_than_are_read_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 10 names"):
        pairs_of("a=1&" * 11, 10)
