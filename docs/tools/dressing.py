"""How the axes of the figures look: light lines, small words, and no frame."""

from __future__ import annotations

from matplotlib.axes import Axes

from layerimp.report.html.svg import LINE, MUTED

SMALL = 11.5


def dress(axes: Axes, across: str, up: str) -> None:
    """Name what the two axes show, and take away what is only decoration.

    Args:
        axes: The axes.
        across: What the horizontal axis shows.
        up: What the vertical axis shows; it stands above the axes.
    """
    axes.patch.set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED, which="both")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.set_xlabel(across, fontsize=SMALL, color=MUTED)
    axes.set_title(up, fontsize=SMALL, color=MUTED, loc="left")
