"""The report as a reader sees it: opened from disk in Chromium, without a network."""

from pathlib import Path

import pytest
from PIL import Image
from webdriver import Browser

from src.evaluation import write_report
from tests.evaluation.report_cases import NASTY_NAMES, pictures, random_scored

LOADED = "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
WIDTHS = "return [document.documentElement.scrollWidth, window.innerWidth]"
GROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "a & <i>run"
    folder.mkdir()
    Image.new("RGB", (900, 1080), "white").save(folder / "curves.png")
    case = random_scored(names=NASTY_NAMES)
    return write_report(case, pictures, folder, about="best.pth, of epoch 3")


def test_it_opens_without_a_complaint_and_with_all_pictures(chromium: Browser, page: Path) -> None:
    chromium.console()
    chromium.open(page)
    loaded = chromium.ask(LOADED)
    assert len(loaded) > 60 and all(loaded)
    assert chromium.console() == []
    requests = chromium.ask("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in requests if not name.startswith("data:")] == []


def test_names_stay_words(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    assert chromium.ask("return document.querySelectorAll('script, i, b b').length") == 0
    cells = chromium.ask("return [...document.querySelectorAll('#classes td.words')].map(c => c.textContent)")
    assert cells == [name.replace("\ud800", "?").replace("\u202e", "") for name in NASTY_NAMES]
    assert chromium.ask("return document.title") == "a & <i>run: evaluation"


@pytest.mark.parametrize("width", [360, 820, 1600])
def test_it_fits_a_screen_of_any_width(chromium: Browser, page: Path, width: int) -> None:
    chromium.tell(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
    )
    chromium.open(page)
    scrolled, inner = chromium.ask(WIDTHS)
    assert inner == width and scrolled <= width


def test_it_is_dark_where_the_reader_wants_it_so(chromium: Browser, page: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.tell("Emulation.setEmulatedMedia", features=features)
        chromium.open(page)
        colour = chromium.ask(GROUND)
        grounds[scheme] = sum(int(part) for part in colour[len("rgb(") : -1].split(","))
    assert grounds["light"] > 3 * 200 and grounds["dark"] < 3 * 50


def test_a_fault_of_the_page_would_be_seen(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text('<img src="missing.png"><script>throw Error("oh")</script>')
    chromium.console()
    chromium.open(tmp_path / "broken.html")
    assert chromium.ask(LOADED) == [False]
    assert len(chromium.console()) >= 2
