"""Colours and marks of everything that is drawn.

The palette is one that colour-blind readers can tell apart and that keeps its contrast on light and on dark pages.
"""

INK = "#0a0b0c"
"""Placeholder for the text colour of the page, which replaces it in the finished SVG."""

PALETTE = ("#2a86c7", "#e08a00", "#129c73", "#c96ba0", "#7a6fd0", "#b3541e")
"""Colours of lines and points, after Okabe and Ito, at a lightness that reads on white and on near-black."""

MARKS = ("o", "s", "^", "D", "v", "P")
"""Shapes of points: they tell more kinds apart than `PALETTE` alone, and help readers who do not see its colours."""

GREY = "#8b929c"

LEFT, RIGHT, MIDDLE = "#d9622b", "#2a86c7", GREY
"""Colours of the limbs of the person's left and right side and of the torso."""
