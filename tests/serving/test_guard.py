from pathlib import Path

import pytest
from fastapi import HTTPException

from src.serving import read_token
from src.serving.guard import check_token

TOKEN = "0123456789abcdef"


def test_token_comes_from_its_file_before_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    assert read_token(path, "another that is long enough") == TOKEN
    assert read_token(None, TOKEN) == TOKEN
    assert read_token(None, None) is None


@pytest.mark.parametrize(
    "text", ["", "short", "0123456789 abcdef", "0123456789abcdé", "0123456789\nabcdef01"]
)
def test_what_is_no_token_is_refused_and_not_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    for came in ((path, None), (None, text)):
        with pytest.raises(ValueError, match="holds no token") as caught:
            read_token(*came)
        assert not text or text not in str(caught.value)


def test_missing_token_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_token(tmp_path / "none", TOKEN)


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_token_is_taken(header: str) -> None:
    check_token(header, TOKEN)
    check_token("", None)


@pytest.mark.parametrize(
    "header", ["", TOKEN, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer é"]
)
def test_missing_or_wrong_token_is_refused(header: str) -> None:
    with pytest.raises(HTTPException) as caught:
        check_token(header, TOKEN)
    assert caught.value.status_code == 401
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
