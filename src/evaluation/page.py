"""The report as one HTML file that holds everything: no script, no font, no picture comes from elsewhere."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from .gallery import Tile

CHART_SCALE = 0.75

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1f2937; --muted: #6b7280;
  --line: #e5e7eb; --accent: #2563eb; --bar: #bfdbfe; --truth: #00beff; --found: #ff6a00; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0e0e10; --card: #181818; --ink: #e5e7eb; --muted: #9ca3af; --line: #2d2d30;
    --accent: #7ab0ff; --bar: #27406b; }
  img.chart { filter: invert(0.906) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 18px 64px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 44px 0 10px; }
h3 { font-size: 1rem; margin: 26px 0 2px; }
h3::first-letter { text-transform: uppercase; }
p { max-width: 74ch; margin: 6px 0 12px; }
.muted, figcaption { color: var(--muted); overflow-wrap: anywhere; }
nav { margin: 14px 0 0; display: flex; flex-wrap: wrap; gap: 6px 18px; }
a { color: var(--accent); text-underline-offset: 3px; }
.numbers { display: grid; gap: 10px; margin: 22px 0;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.number, .card, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.number { padding: 10px 14px; }
.number b { display: block; font-size: 1.55rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.number span { color: var(--muted); font-size: 0.85rem; }
.number.main { border-color: var(--accent); }
.charts { display: grid; gap: 14px; margin: 14px 0; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.card { padding: 12px; margin: 0; }
.card img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.scroll { overflow: auto; max-height: 640px; margin: 14px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { padding: 6px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.words, td.words { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8em; }
th { position: sticky; top: 0; background: var(--card); color: var(--muted); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
td.bar { min-width: 8em; background: linear-gradient(var(--bar), var(--bar)) no-repeat left center;
  background-size: calc(var(--share) * 1%) 70%; }
.tiles { display: grid; gap: 12px; margin: 8px 0 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); }
.tiles.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); }
.tiles figure { margin: 0; }
.tiles .pair { display: grid; gap: 6px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); }
.tiles img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--line); }
.tiles:not(.wide) img { aspect-ratio: 1; object-fit: contain; }
figcaption { font-size: 0.83rem; line-height: 1.4; margin-top: 4px; }
figcaption span { display: block; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.key { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; vertical-align: -0.05em; }
.key.truth { background: var(--truth); }
.key.found { background: var(--found); }
@media (max-width: 480px) {
  .tiles:not(.wide) { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  th, td { padding: 6px 8px; }
}
@media print { body { background: #fff; } .scroll { max-height: none; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; `title` is text, the parts of the body are HTML."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>"
    )
    inner = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n'
        f"<body>\n<main>\n{inner}\n</main>\n</body>\n</html>\n"
    )


def text(words: object) -> str:
    """Words as they are, whatever signs they hold."""
    return escape(str(words))


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page that a link can point at; the parts are HTML."""
    inner = "\n".join(parts)
    return f'<section id="{text(name)}">\n<h2>{text(title)}</h2>\n{inner}\n</section>'


def paragraph(words: str) -> str:
    """A paragraph of text."""
    return f"<p>{text(words)}</p>"


def links(sections: Sequence[tuple[str, str]]) -> str:
    """Links to sections, by (name, title)."""
    return "<nav>" + "".join(f'<a href="#{text(n)}">{text(t)}</a>' for n, t in sections) + "</nav>"


def numbers(values: Sequence[tuple[str, str]]) -> str:
    """Cards of (name, value); the first one is the number that counts most."""
    cards = (
        f'<div class="number{"" if i else " main"}"><b>{text(value)}</b><span>{text(name)}</span></div>'
        for i, (name, value) in enumerate(values)
    )
    return f'<div class="numbers">{"".join(cards)}</div>'


def charts(files: Sequence[tuple[Path, str]]) -> str:
    """Charts by (PNG file, what it shows), side by side where there is room."""
    cards = (f'<figure class="card">{_chart(path, alt)}</figure>' for path, alt in files)
    return f'<div class="charts">{"".join(cards)}</div>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1, bar: int | None = None
) -> str:
    """A table of text.

    Args:
        head: What the columns are.
        rows: Their cells.
        words: The first columns that hold words, not numbers.
        bar: A column of percentages that are also drawn.
    """

    def cell(tag: str, column: int, value: str) -> str:
        kind = ' class="words"' if column < words else ""
        if tag == "td" and column == bar and value[:1].isdigit():
            kind = f' class="bar" style="--share:{float(value):.1f}"'
        return f"<{tag}{kind}>{text(value)}</{tag}>"

    top = "".join(cell("th", i, value) for i, value in enumerate(head))
    lines = ("".join(cell("td", i, value) for i, value in enumerate(row)) for row in rows)
    inner = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{inner}</tbody></table></div>'


def gallery(tiles: Sequence[Tile]) -> str:
    """The tiles, as many in a row as there is room for."""
    wide = any(len(tile.pictures) > 1 for tile in tiles)
    figures = []
    for tile in tiles:
        pictures = "".join(_photo(picture, tile.caption) for picture in tile.pictures)
        source = f'<span title="{text(tile.source)}">{text(tile.source)}</span>'
        caption = f"<figcaption>{text(tile.caption)}{source}</figcaption>"
        figures.append(f'<figure><div class="pair">{pictures}</div>{caption}</figure>')
    return f'<div class="tiles{" wide" if wide else ""}">{"".join(figures)}</div>'


def colour_key() -> str:
    """What the colours of the error pictures mean."""
    return (
        '<p class="muted"><span class="key truth"></span> the true object &nbsp; '
        '<span class="key found"></span> the detection</p>'
    )


def _photo(picture: Image.Image, alt: str) -> str:
    """A photo inside the page, as JPEG: a fifth of PNG's size."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=88, subsampling=0)
    return _img("jpeg", data.getvalue(), picture.size, alt, "")


def _chart(path: Path, alt: str) -> str:
    """A chart inside the page, shown smaller than it is: so it is sharp on a screen of more dots, too."""
    png = path.read_bytes()
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # of the IHDR chunk
    return _img("png", png, (round(width * CHART_SCALE), round(height * CHART_SCALE)), alt, "chart")


def _img(kind: str, data: bytes, size: tuple[int, int], alt: str, css: str) -> str:
    """The picture inside the page; its size is stated, so that nothing moves while it loads."""
    source = base64.b64encode(data).decode("ascii")
    return (
        f'<img class="{css}" width="{size[0]}" height="{size[1]}" alt="{text(alt)}" '
        f'src="data:image/{kind};base64,{source}">'
    )
