"""The drawing of block, seam and gap: four blocks, whole, without one of them, and without a seam."""

from __future__ import annotations

from typing import Any

from dressing import SMALL, standalone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerimp.report.page.curves import ACCENT, INK, MUTED, PAPER, drawn

BLOCKS = 4
ROWS = {"intact": range(0), "without block 1": range(2, 4), "without seam 1/2": range(3, 5)}
"""The rows, and the sublayers that each lacks, counted from the first attention."""
LEFT, CELL, HIGH, ROW, TOP = 130, 78, 34, 78, 12
"""In pixels: the words on the left, the width and height of a sublayer, and the height of a row, below the top."""
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}


def picture() -> str:
    """Draw the rows below one another; a line joins what forms a block."""
    width, height = LEFT + 2 * BLOCKS * CELL + 4, TOP + ROW * len(ROWS)
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for n, (name, removed) in enumerate(ROWS.items()):
        up = TOP + n * ROW
        axes.text(LEFT - 10, up + HIGH / 2, name, color=INK, fontsize=SMALL, ha="right", va="center")
        for sublayer in range(2 * BLOCKS):
            _sublayer(axes, sublayer, up, sublayer in removed)
        kept = [sublayer for sublayer in range(2 * BLOCKS) if sublayer not in removed]
        for block, (first, last) in enumerate(zip(kept[::2], kept[1::2], strict=True)):
            _joined(axes, first, last, up, f"block {block}{', over the gap' if last - first > 1 else ''}")
        if removed and removed[0] % 2 == 0:
            axes.text(LEFT + (removed[0] + 1) * CELL, up + HIGH + 20, "gap", color=MUTED, fontsize=SMALL, **_MIDDLE)
    return standalone(str(drawn(figure, "seams", "A row of blocks: intact, without a block, and without a seam")))


def _sublayer(axes: Axes, sublayer: int, up: float, removed: bool) -> None:
    """Draw an attention or an MLP, with a dashed edge and no ground if it is removed."""
    place = LEFT + sublayer * CELL + 3, up
    ground: dict[str, Any] = {
        "facecolor": PAPER if removed else ACCENT,
        "alpha": 1.0 if removed else 0.2 + 0.25 * (sublayer % 2),
    }
    axes.add_patch(Rectangle(place, CELL - 6, HIGH, edgecolor="none", **ground))
    if removed:
        axes.add_patch(Rectangle(place, CELL - 6, HIGH, fill=False, edgecolor=MUTED, linestyle=(0, (4, 3))))
    word = f"{('attn', 'mlp')[sublayer % 2]} {sublayer // 2}"
    axes.text(place[0] + CELL / 2 - 3, up + HIGH / 2, word, color=MUTED if removed else INK, fontsize=SMALL, **_MIDDLE)


def _joined(axes: Axes, first: int, last: int, up: float, name: str) -> None:
    """Draw the line below the two halves of a block, with its name."""
    ends = LEFT + first * CELL + 6, LEFT + (last + 1) * CELL - 6
    axes.plot(ends, [up + HIGH + 7] * 2, color=INK, linewidth=1.4)
    axes.text(sum(ends) / 2, up + HIGH + 20, name, color=INK, fontsize=SMALL, **_MIDDLE)
