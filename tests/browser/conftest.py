"""The browser that the tests of this folder drive."""

from collections.abc import Iterator

import pytest
from webdriver import Browser, browser, missing


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
