"""The parts of a page: text, tables, pictures, and the document around them, with its style."""

import base64
import html
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

_CSS = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1d20; --soft: #5a6069; --line: #d5d9de;
  --box: #f4f6f8; --link: #005a9c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #e8eaed; --soft: #a9b0b9;
  --line: #3a3f46; --box: #202328; --link: #8cc8f0; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 0 1rem 3rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 1.5rem 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .6rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p, li { max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--page); padding: .5rem; }
.soft, figcaption, caption, dd p { color: var(--soft); font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; }
nav a { display: inline-block; padding: .2rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr));
  gap: .8rem; margin: 0; }
.cards div { background: var(--box); border-radius: .5rem; padding: .7rem .9rem; }
.cards dt { font-weight: 600; }
.cards dd { margin: 0; }
.cards .number { font-size: 1.6rem; font-variant-numeric: tabular-nums; color: var(--ink);
  margin: 0; }
.cards dd p { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
  gap: 1rem; align-items: start; }
figure { margin: 0; }
img { max-width: 100%; height: auto; }
figure img { display: block; }
.scroll { overflow-x: auto; margin: .6rem 0; max-height: 36rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { font-weight: 600; }
th[scope="col"] { white-space: normal; vertical-align: bottom; }
th:first-child, .text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
.bad :is(th, td) { color: var(--bad); font-weight: 600; }
.heat td { border: 1px solid var(--page); text-align: center; min-width: 3rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; padding: .2rem 0; color: var(--link); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr));
  gap: .8rem; list-style: none; padding: 0; margin: .4rem 0; }
.gallery img { width: 5rem; image-rendering: pixelated; border-radius: .2rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: .4rem 2rem; }
.strip { display: flex; flex-wrap: wrap; gap: .3rem; }
.strip img { width: 3.3rem; image-rendering: pixelated; border-radius: .2rem; }
.wide img { background: #fff; border-radius: .3rem; }
pre { background: var(--box); border-radius: .5rem; padding: .8rem; width: max-content;
  min-width: 100%; margin: 0; }
.notes { border-left: .3rem solid #d55e00; background: var(--box); padding: .5rem 1rem; }
.notes ul { margin: 0; padding-left: 1.2rem; }
.notes p { margin: 0; }
"""

# Of tables' cells; at half strength text is readable on either page
_SHADES = "".join(f".shade{i} {{ background: rgb(86 180 233 / {5 * i}%); }}\n" for i in range(11))


class Section(NamedTuple):
    """A section of a page, with its heading and a name for links to it."""

    name: str
    heading: str
    body: str


def plain(value: object) -> str:
    """Returns a value as text; spaces of any kind become plain ones, and characters that no page
    may have, or that cannot be seen, the replacement character.
    """
    text = "".join(" " if c.isspace() and c != "\n" else c for c in str(value))
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def shorten(text: str, length: int) -> str:
    """Returns plain text cut to a number of characters."""
    text = plain(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def escape(value: object) -> str:
    """Returns a value as HTML text, or as an attribute's."""
    return html.escape(plain(value))


def paragraph(text: str) -> str:
    """Returns a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def items(texts: Iterable[str]) -> str:
    """Returns a list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence],
    words: Collection[str] = (),
    bad: Collection[int] = (),
) -> str:
    """Returns a table whose cells are escaped; the first of each row is its heading.

    Args:
        caption: says what it shows; it must differ from the page's other captions.
        columns: the headings.
        rows: the cells.
        words: the columns that hold text rather than numbers.
        bad: the numbers of the rows that are shown in red.
    """
    kinds = [' class="text"' if name in words else "" for name in columns]
    body = (
        ('<tr class="bad">' if index in bad else "<tr>")
        + f'<th scope="row">{escape(first)}</th>'
        + "".join(
            f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds[1:], others, strict=True)
        )
        + "</tr>"
        for index, (first, *others) in enumerate(rows)
    )
    return _table(caption, columns, body, kinds)


def heat_table(
    caption: str, columns: Sequence[str], names: Sequence[str], values: np.ndarray, digits: int
) -> str:
    """Returns a table of numbers, [rows, columns - 1], that are shaded between their extremes."""
    low, high = float(values.min()), float(values.max())
    shades = 10 * (values - low) / ((high - low) or 1)
    body = (
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="shade{shade:.0f}">{value:.{digits}f}</td>'
            for value, shade in zip(row, row_shades, strict=True)
        )
        + "</tr>"
        for name, row, row_shades in zip(names, values, shades, strict=True)
    )
    return _table(caption, columns, body, [""] * len(columns), "heat")


def _table(
    caption: str,
    columns: Sequence[str],
    body: Iterable[str],
    kinds: Sequence[str],
    table_class: str = "numbers",
) -> str:
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, name in zip(kinds, columns, strict=True)
    )
    return scrolling(
        caption,
        f'<table class="{table_class}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(body) + "</tbody></table>",
    )


def scrolling(name: str, body: str) -> str:
    """Returns a part that may be wider than the page. The keyboard can focus it, to scroll it, and
    a screen reader finds it by its name: a section with a label is a region.
    """
    label = escape(name)
    return f'<section class="scroll" tabindex="0" aria-label="{label}">{body}</section>'


def command(text: str) -> str:
    """Returns a command line to copy."""
    return scrolling("Command", f"<pre><code>{escape(text)}</code></pre>")


def details(summary: str, body: str) -> str:
    """Returns a part that is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def image(content: bytes, media_type: str, alt: str, size: tuple[int, int] | None = None) -> str:
    """Returns a picture that the page itself holds; `size` is its (width, height) in pixels."""
    data = base64.b64encode(content).decode()
    where = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return f'<img src="data:{media_type};base64,{data}" alt="{escape(alt)}"{where}>'


def figure(picture: str, caption: str, kind: str = "") -> str:
    """Returns a picture with its caption in plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<figure{attribute}>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def cards(rows: Iterable[tuple[str, str, str]]) -> str:
    """Returns headline numbers: (name, number, what it means) each."""
    return (
        '<dl class="cards">'
        + "".join(
            f'<div><dt>{escape(name)}</dt><dd><p class="number">{escape(number)}</p>'
            f"<p>{escape(meaning)}</p></dd></div>"
            for name, number, meaning in rows
        )
        + "</dl>"
    )


def document(title: str, subtitle: str, notes: Sequence[str], sections: Sequence[Section]) -> str:
    """Returns the page."""
    links = "".join(f'<li><a href="#{s.name}">{escape(s.heading)}</a></li>' for s in sections)
    missing = ""
    if notes:
        missing = f'<div class="notes"><p>Not in this report:</p>{items(notes)}</div>'
    body = "\n".join(
        f'<section id="{s.name}"><h2>{escape(s.heading)}</h2>\n{s.body}\n</section>'
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_CSS}{_SHADES}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{escape(title)}</h1>
<p class="soft">{escape(subtitle)}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="content">
{missing}
{body}
</main>
</body>
</html>
"""
