"""The drawings of the documents, as SVG, each for light and for dark pages.

    .venv/bin/python tools/drawings.py

What a query sees in the drawing of dynamic mask attention is computed here by the rule of the model, not drawn by hand.
"""

from pathlib import Path


IMAGES = Path(__file__).parents[1] / "docs" / "images"
PALETTES = {
    "light": {
        "ink": "#24292f",
        "soft": "#6e7781",
        "line": "#8c959f",
        "box": "#f3f0fa",
        "fill": "#7e57c2",
        "edge": "#7e57c2",
    },
    "dark": {
        "ink": "#e6edf3",
        "soft": "#9da7b3",
        "line": "#768390",
        "box": "#2b2540",
        "fill": "#b39ddb",
        "edge": "#b39ddb",
    },
}
SCORES = [0.62, 0.95, 0.30, 0.48, 0.85, 0.22, 0.55, 0.40, 0.90, 0.35, 0.70, 0.50]  # of twelve keys, made up
WINDOW = 4


class Drawing:
    """Shapes on a canvas, in the colours of one palette."""

    def __init__(self, width: int, height: int, palette: dict[str, str], title: str) -> None:
        self.size, self.palette, self.title = (width, height), palette, title
        self.shapes: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, *lines: str, dashed: bool = False) -> None:
        """Draw a box with lines of text in its middle."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.shapes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{self.palette["box"]}" '
            f'stroke="{self.palette["edge"]}"{dash}/>'
        )
        for number, line in enumerate(lines):
            middle = y + height / 2 + (number - (len(lines) - 1) / 2) * 17 + 5
            self.text(
                x + width / 2, middle, line, "middle", "ink" if number == 0 else "soft", 14 if number == 0 else 12
            )

    def text(self, x: float, y: float, text: str, anchor: str = "start", colour: str = "ink", size: int = 13) -> None:
        """Write a line."""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{self.palette[colour]}">{text}</text>'
        )

    def arrow(self, *points: tuple[int, int]) -> None:
        """Draw an arrow through points."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{self.palette["line"]}" marker-end="url(#tip)"/>'
        )

    def cell(self, x: float, y: float, size: float, filled: bool) -> None:
        """Draw a square that is filled or hollow."""
        paint = self.palette["fill"] if filled else "none"
        edge = self.palette["edge"] if filled else self.palette["line"]
        opacity = "1" if filled else "0.45"
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" rx="3" fill="{paint}" stroke="{edge}" '
            f'opacity="{opacity}"/>'
        )

    def bar(self, x: float, base: float, width: float, height: float) -> None:
        """Draw a bar that stands on a line."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{base - height:g}" width="{width:g}" height="{height:g}" fill="{self.palette["soft"]}"/>'
        )

    def render(self) -> str:
        """Return the SVG."""
        width, height = self.size
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{self.palette["line"]}"/></marker></defs>'
        )
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        return "\n".join([head, f"<title>{self.title}</title>", tip, *self.shapes, "</svg>\n"])


def draw_architecture(palette: dict[str, str]) -> Drawing:
    """Draw the whole model at the left and one of its layers at the right."""
    drawing = Drawing(760, 380, palette, "A Doge: embedding, layers, output; and what one layer does")
    for y, lines in (
        (310, ("Token embedding",)),
        (145, ("Layers", "8 to 32 of them")),
        (80, ("RMSNorm",)),
        (15, ("Output", "weights of the embedding")),
    ):
        drawing.box(20, y, 200, 120 if "Layers" in lines else 45, *lines)
    for start, end in ((310, 265), (145, 125), (80, 60)):
        drawing.arrow((120, start), (120, end))
    drawing.arrow((120, 375), (120, 355))
    drawing.shapes.append(
        f'<path d="M220 145 L270 20 M220 265 L270 360" stroke="{palette["line"]}" stroke-dasharray="3 4" fill="none"/>'
    )
    drawing.text(345, 22, "One layer", size=15)
    drawing.arrow((320, 375), (320, 8))
    for y, name, note, skip in (
        (290, "Dynamic mask attention", "looks back at the w best-rated tokens", "r₁"),
        (120, "Gated feed-forward", "works on each token by itself", "r₂"),
    ):
        drawing.arrow((320, y + 40), (380, y + 40), (380, y - 8), (408, y - 8))
        drawing.box(410, y - 30, 95, 45, "RMSNorm")
        drawing.box(525, y - 30, 215, 45, name, note)
        drawing.arrow((505, y - 8), (523, y - 8))
        drawing.arrow((632, y - 30), (632, y - 62), (331, y - 62))
        drawing.shapes.append(
            f'<circle cx="320" cy="{y - 62}" r="10" fill="{palette["box"]}" stroke="{palette["edge"]}"/>'
        )
        drawing.text(320, y - 57, "+", "middle", size=15)
        drawing.text(312, y - 8, f"× {skip}", "end", "soft")
    drawing.box(525, 150, 215, 45, "Experts (optional)", "a few of thousands for each token", dashed=True)
    drawing.arrow((632, 150), (632, 137))
    return drawing


def select_by_score(query: int) -> set[int]:
    """Return the keys that a query sees: those with the largest scores, the more recent first among equals."""
    return set(sorted(range(query + 1), key=lambda key: (SCORES[key], key), reverse=True)[:WINDOW])


def select_recent(query: int) -> set[int]:
    """Return the keys that a query sees through a sliding window."""
    return set(range(max(0, query + 1 - WINDOW), query + 1))


def draw_dynamic_mask(palette: dict[str, str]) -> Drawing:
    """Draw which keys each query sees: by score, and through a sliding window."""
    drawing = Drawing(760, 430, palette, "Which earlier tokens each token sees, with room for four")
    step, size, top = 24, 20, 105
    for left, name, select in (
        (60, "Dynamic mask attention", select_by_score),
        (430, "Sliding window", select_recent),
    ):
        drawing.text(left, 22, f"{name}, w = {WINDOW}", size=15)
        for key, score in enumerate(SCORES):
            if select is select_by_score:
                drawing.bar(left + key * step + 4, top - 12, size - 8, 42 * score)
            for query in range(key, len(SCORES)):
                drawing.cell(left + key * step, top + query * step, size, key in select(query))
        drawing.text(left + 6 * step, top + 12 * step + 24, "key: the token that is seen", "middle", "soft")
    drawing.text(56, 88, "score", "end", "soft", 12)
    for query in range(len(SCORES)):
        drawing.text(52, top + query * step + 15, str(query + 1), "end", "soft", 11)
    drawing.shapes.append(
        f'<text transform="translate(22 {top + 6 * step}) rotate(-90)" text-anchor="middle" font-size="13" '
        f'fill="{palette["soft"]}">query: the token that looks back</text>'
    )
    return drawing


def main() -> None:
    """Write every drawing in every palette."""
    IMAGES.mkdir(exist_ok=True)
    for name, draw in (("architecture", draw_architecture), ("dynamic-mask", draw_dynamic_mask)):
        for mode, palette in PALETTES.items():
            (IMAGES / f"{name}-{mode}.svg").write_text(draw(palette).render(), encoding="utf-8")


if __name__ == "__main__":
    main()
