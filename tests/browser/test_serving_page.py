"""The service's page as a person uses it, in Chromium, without a network beyond the service."""

import json
import time
from pathlib import Path

import pytest
from webdriver import PATIENCE, Browser

pytest.importorskip("fastapi", reason="pip install -r requirements-serve.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-serve.txt")
pytest.importorskip("python_multipart", reason="pip install -r requirements-serve.txt")
pytest.importorskip("prometheus_client", reason="pip install -r requirements-serve.txt")

from page_cases import MARK, NASTY, SCORES, SIZE, MarkRuntime, picture, serving

from src.serving import Limits

DONE = "document.querySelectorAll('[data-status=done]').length === {}"
BOXES = "return document.querySelectorAll('.box').length"
STATUS = "return document.getElementById('status').textContent"
TAGS = "return [...document.querySelectorAll('.tag')].map(tag => tag.textContent)"
SLIDE = """const slider = document.getElementById('threshold');
slider.value = {}; slider.dispatchEvent(new Event('input'))"""
HEADING = "return document.querySelector('.card h2').textContent"
RECTANGLE = "const {x, y, width, height} = document.querySelector('%s').getBoundingClientRect();"
EDGES = RECTANGLE + "return [x, y, x + width, y + height]"
TOKEN = "open-sesame-please"
WIDTHS = "return [document.documentElement.scrollWidth, window.innerWidth]"


@pytest.fixture(scope="module")
def address():
    with serving(MarkRuntime(), "tiny", Limits(max_upload_bytes=1_000_000)) as url:
        yield url


@pytest.fixture
def page(chromium: Browser, address: str):
    """The page, just opened; at the end it has nothing to complain of."""
    chromium.tell("Emulation.clearDeviceMetricsOverride")
    chromium.console()
    chromium.open(address)
    chromium.wait("document.querySelectorAll('#classes li').length === 80")
    yield chromium
    refusal = f"{address}predict - Failed to load resource"  # the browser's own word on a 4xx
    assert [line for line in chromium.console() if not line.startswith(refusal)] == []


def send(page: Browser, *files: Path, done: int) -> None:
    page.send_keys("#files", "\n".join(map(str, files)))
    page.wait(DONE.format(done))


def test_slider_and_classes_filter_in_the_browser(page: Browser, tmp_path: Path) -> None:
    send(page, picture(tmp_path / "a.jpg"), picture(tmp_path / "b.png"), done=2)
    asked = "return performance.getEntriesByName(new URL('predict', location).href).length"
    assert page.ask(asked) == 2
    for threshold, kept in ((0.05, 4), (0.2, 3), (0.4, 2), (0.87, 1), (0.9, 0)):
        page.ask(SLIDE.format(threshold))
        assert page.ask(BOXES) == 2 * kept, threshold
        assert f"{2 * kept} detections shown" in page.ask(STATUS)
    page.ask(SLIDE.format(0.05))
    counts = "return [...document.querySelectorAll('.count')].slice(0, 4).map(count => count.textContent)"
    assert page.ask(counts) == ["2", "4", "2", ""]
    page.click("#classes li:nth-child(2) label")
    assert page.ask(BOXES) == 2 * 2
    page.click("#none")
    assert page.ask(BOXES) == 0
    page.send_keys("#find", "OW")
    page.click("#classes li:not([hidden]) input")
    assert page.ask(TAGS) == ["owl 0.31"] * 2
    page.click("#all")
    assert page.ask(BOXES) == 2 * 4
    page.click("#pictures .remove")
    page.wait(DONE.format(1))
    assert page.ask(BOXES) == 4
    assert page.ask("return document.activeElement.ariaLabel") == "Remove b.png"
    page.click("#clear")
    assert page.ask("return document.getElementById('empty').checkVisibility()")
    assert page.ask(asked) == 2 and page.console() == []


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("ratio", [1, 2])
def test_a_box_lies_on_what_was_found(page: Browser, tmp_path: Path, orientation: int, ratio: int) -> None:
    page.tell(
        "Emulation.setDeviceMetricsOverride", width=1000, height=800, deviceScaleFactor=ratio, mobile=False
    )
    send(page, picture(tmp_path / "phone.jpg", orientation), done=1)
    page.ask(SLIDE.format(0.8))
    x0, y0, x1, y1 = page.ask(EDGES % ".stage")
    scale = (x1 - x0) / SIZE[0]
    assert (y1 - y0) / SIZE[1] == pytest.approx(scale, rel=0.01) and scale > 2
    box = page.ask(EDGES % ".box")
    expected = [start + scale * edge for start, edge in zip((x0, y0) * 2, MARK, strict=True)]
    assert box == pytest.approx(expected, abs=0.02 * (x1 - x0))  # the JPEG's edge is a little soft
    page.wait("document.querySelector('.stage img').complete")
    window = page.screenshot()
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    beside = (box[2] + 6, centre[1])
    assert [window.getpixel((ratio * x, ratio * y)) for x, y in (centre, beside)] == [(255,) * 3, (0,) * 3]
    line = window.getpixel((ratio * (box[2] - 1), ratio * centre[1]))
    assert max(line) - min(line) > 60  # in a colour, on white and beside black


def test_the_download_holds_what_is_shown(page: Browser, tmp_path: Path) -> None:
    page.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    (tmp_path / "notes.txt").write_text("no picture")
    send(page, picture(tmp_path / "a.png"), tmp_path / "notes.txt", done=1)
    page.wait("document.querySelector('[data-status=failed]')")
    page.ask(SLIDE.format(0.2))
    page.click("#classes li:nth-child(2) label")
    page.click("#download")
    saved = tmp_path / "detections.json"
    end = time.monotonic() + PATIENCE
    while not saved.exists() and time.monotonic() < end:
        time.sleep(0.05)
    told = json.loads(saved.read_text())
    assert told["threshold"] == 0.2 and told["classes_off"] == [NASTY]
    (result,) = told["results"]
    assert (result["name"], result["width"], result["height"]) == ("a.png", *SIZE)
    assert [one["label"] for one in result["detections"]] == [0, 2]
    assert result["detections"][0]["box"] == pytest.approx(MARK, abs=0.5)
    assert result["detections"][0]["score"] == pytest.approx(SCORES[0], abs=1e-5)
    assert [failed["name"] for failed in told["failed"]] == ["notes.txt"]


def test_a_picture_that_fails_says_why(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "large.jpg").write_bytes(bytes(1_000_001))
    page.send_keys("#files", f"{tmp_path / 'notes.png'}\n{tmp_path / 'large.jpg'}")
    page.wait("document.querySelectorAll('[data-status=failed]').length === 2")
    said = page.ask("return [...document.querySelectorAll('.message')].map(message => message.textContent)")
    assert "picture" in said[0] and "(400)" in said[0]
    assert said[1] == "The file has 1.01 MB; the service takes 1 MB at most."
    assert page.ask(STATUS) == "0 of 2 pictures done, 2 failed; 0 detections shown."
    assert page.ask("return document.getElementById('download').disabled")


def test_names_stay_words(page: Browser, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)>.png"
    send(page, picture(tmp_path / nasty), done=1)
    assert page.ask(HEADING) == nasty
    assert f"{NASTY} 0.63" in page.ask(TAGS)
    assert page.ask("return document.querySelectorAll('img').length") == 1
    assert page.ask("return document.title") == "tiny: detector"


def test_a_picture_dropped_is_a_picture_chosen(page: Browser) -> None:
    page.ask("""const canvas = Object.assign(document.createElement('canvas'), {width: 160, height: 80});
        canvas.getContext('2d').fillStyle = 'white'; canvas.getContext('2d').fillRect(40, 20, 60, 40);
        canvas.toBlob(blob => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([blob], 'dropped.png', {type: 'image/png'}));
            const event = {dataTransfer, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new DragEvent('drop', event));
        })""")
    page.wait(DONE.format(1))
    assert page.ask(HEADING) == "dropped.png"


def test_a_picture_that_the_browser_cannot_show_has_its_boxes(page: Browser, tmp_path: Path) -> None:
    send(page, picture(tmp_path / "scan.tif"), done=1)
    page.wait("document.querySelector('.message').textContent.startsWith('This browser cannot show')")
    assert page.ask(BOXES) == 2
    x0, y0, x1, y1 = page.ask(EDGES % ".stage")
    assert (x1 - x0) / (y1 - y0) == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)


@pytest.mark.parametrize("width", [340, 760, 1600])
def test_it_fits_a_window_of_any_width(page: Browser, tmp_path: Path, width: int) -> None:
    page.tell(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
    )
    long = "one_name_without_a_place_to_break_" * 4 + ".png"
    send(page, picture(tmp_path / long), picture(tmp_path / "b.png"), done=2)
    page.ask("document.querySelectorAll('details').forEach(list => { list.open = true; })")
    scrolled, inner = page.ask(WIDTHS)
    assert inner == width and scrolled <= width


def test_the_keyboard_reaches_everything(page: Browser, tmp_path: Path) -> None:
    send(page, picture(tmp_path / "a.png"), done=1)
    page.send_keys("#threshold", "\ue012" * 25)  # arrow to the left
    assert page.ask("return document.getElementById('threshold-value').textContent") == "0.15"
    assert page.ask(BOXES) == 3
    page.send_keys("#classes input", " ")
    assert page.ask(BOXES) == 2
    nameless = """return [...document.querySelectorAll('input, button, select')].filter(one =>
        !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).length"""
    assert page.ask(nameless) == 0


def test_it_leads_to_the_page_for_programs(page: Browser) -> None:
    page.tell("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
    page.click("header a")
    page.wait("location.pathname === '/docs' && document.readyState === 'complete'")
    assert "POST /predict" in page.ask("return document.body.innerText")
    scrolled, inner = page.ask(WIDTHS)
    assert inner == 360 and scrolled <= 360


def test_nothing_but_the_service_is_asked_and_no_other_script_runs(page: Browser, address: str) -> None:
    requests = page.ask("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(requests) >= 5 and all(name.startswith(address) for name in requests)
    page.ask("""const script = document.createElement('script');
        script.textContent = 'window.ran = true'; document.body.append(script)""")
    assert page.ask("return window.ran") is None
    assert "Content Security Policy" in " ".join(page.console())


def test_it_is_dark_where_the_reader_wants_it_so(page: Browser) -> None:
    grounds = []
    for scheme in ("dark", "light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.tell("Emulation.setEmulatedMedia", features=features)
        colour = page.ask("return getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(part) for part in colour[len("rgb(") : -1].split(",")))
    assert grounds[0] < 3 * 50 and grounds[1] > 3 * 200


def test_a_token_is_asked_for_and_kept_in_the_page_alone(chromium: Browser, tmp_path: Path) -> None:
    with serving(MarkRuntime(), "tiny", Limits(), TOKEN) as url:
        chromium.open(url)
        chromium.wait("document.getElementById('token-form').checkVisibility()")
        chromium.send_keys("#files", str(picture(tmp_path / "a.png")))
        chromium.wait("document.querySelector('[data-status=failed]')")
        assert "token" in chromium.ask("return document.querySelector('.message').textContent")
        chromium.ask("document.getElementById('token').value = 'Sesam, öffne dich \u2026'")
        chromium.click("#token-form button")
        chromium.wait("document.querySelector('.message').textContent.includes('no token can have')")
        chromium.ask("document.getElementById('token').value = ''")
        chromium.send_keys("#token", TOKEN + "\ue007")
        chromium.wait(DONE.format(1))
        assert chromium.ask(BOXES) == 2
        stores = "return [localStorage.length, sessionStorage.length, document.cookie, location.href]"
        assert chromium.ask(stores) == [0, 0, "", url]
        chromium.console()
