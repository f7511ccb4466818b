"""How the figures look: axes with light lines, small words and no frame, and colours for light and dark."""

from __future__ import annotations

import re

from matplotlib.axes import Axes

from layerimp.report.page.curves import LINE, MUTED

SMALL = 11.5
_COLOURS = {
    "light": "--paper: #ffffff; --ink: #1c1e22; --muted: #5b5f67; --line: #dcdad4; --accent: #0b62a8;",
    "dark": "--paper: #15171a; --ink: #e9e7e2; --muted: #a5a9b0; --line: #363a40; --accent: #5fb0f0;",
}


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


def standalone(svg: str) -> str:
    """A picture that needs no page around it: it has colours of its own for light and dark, and a ground."""
    sans = "--sans: system-ui, -apple-system, 'Segoe UI', sans-serif;"
    style = (
        f"<style>svg {{ {sans} {_COLOURS['light']} }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {_COLOURS['dark']} }} }}</style>"
    )
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ground = '<rect width="100%" height="100%" rx="6" style="fill: var(--paper)"/>'
    return re.sub(r"<svg ([^>]*)>", lambda match: f"<svg {names} {match[1]}>{style}{ground}", svg, count=1)
