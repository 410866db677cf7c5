"""Small plots as SVG: bars with the spread of what they stand for, and flame graphs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH = 760
LABELS = 230
ROW = 26
HEAD = 46
INK = "#1f2430"
OURS, THEIRS = "#2f6fde", "#b9c0cf"
FLAMES = ("#e8743b", "#ec8c4f", "#f0a464", "#e0612a")


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    low: float
    high: float
    is_ours: bool


def bars(title: str, unit: str, found: Sequence[Bar]) -> str:
    """One row for each, longest is largest."""
    largest = max((bar.high for bar in found), default=0.0) or 1.0
    scale = (WIDTH - LABELS - 110) / largest
    rows = [line for number, bar in enumerate(found) for line in row(HEAD + number * ROW, bar, scale)]
    heading = title if title.endswith(unit) else f"{title} ({unit})"
    return document(title, heading, HEAD + len(found) * ROW + 10, rows)


def row(top: float, bar: Bar, scale: float) -> list[str]:
    middle = top + ROW / 2
    low, high = LABELS + bar.low * scale, LABELS + bar.high * scale
    colour = OURS if bar.is_ours else THEIRS
    return [
        text(LABELS - 8, middle + 4, bar.label, "end"),
        rectangle(LABELS, top + 4, bar.value * scale, ROW - 8, colour),
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="{INK}" stroke-width="1.5"/>',
        text(high + 8, middle + 4, f"{bar.value:.4g}", "start"),
    ]


@dataclass
class Flame:
    """How often a frame was seen, and what it had called."""

    n: int = 0
    inner: "dict[str, Flame]" = field(default_factory=dict)

    def add(self, stack: Sequence[str]) -> None:
        """From the outermost frame on."""
        self.n += 1
        if stack:
            self.inner.setdefault(stack[0], Flame()).add(stack[1:])

    def depth(self) -> int:
        return 1 + max((flame.depth() for flame in self.inner.values()), default=0)


def flame_graph(title: str, root: Flame) -> str:
    """Callers below, what they called above; as wide as it took time."""
    height = HEAD + root.depth() * 18
    return document(title, f"{title} ({root.n} samples)", height + 10, frames(root, "all", 0.0, WIDTH, height, root.n))


def frames(flame: Flame, name: str, left: float, width: float, bottom: float, n_all: int) -> list[str]:
    if width < 1:
        return []
    share = f"{name}: {100 * flame.n / n_all:.1f} %"
    colour = FLAMES[sum(name.encode()) % len(FLAMES)]
    shown = name if len(name) * 6.2 < width - 6 else name[: max(0, int((width - 12) / 6.2))]
    found = [
        f"<g><title>{escape(share)}</title>{rectangle(left, bottom - 17, width - 0.5, 16, colour)}",
        f"{text(left + 3, bottom - 5, shown, 'start') if shown else ''}</g>",
    ]
    for inner_name, inner in sorted(flame.inner.items()):
        inner_width = width * inner.n / flame.n
        found += frames(inner, inner_name, left, inner_width, bottom - 18, n_all)
        left += inner_width
    return found


def document(title: str, heading: str, height: float, rows: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
    )
    background = rectangle(0, 0, WIDTH, height, "#ffffff")
    top = f'<text x="12" y="26" font-size="15" font-weight="600">{escape(heading)}</text>'
    return "\n".join([head, f"<title>{escape(title)}</title>", background, top, *rows, "</svg>", ""])


def rectangle(left: float, top: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{colour}"/>'


def text(left: float, baseline: float, words: str, anchor: str) -> str:
    return f'<text x="{left:.1f}" y="{baseline:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
