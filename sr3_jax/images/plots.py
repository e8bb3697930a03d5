"""Plots, by matplotlib, as arrays."""

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def empty(width: int, height: int) -> tuple[FigureCanvasAgg, Axes]:
    """Axes to draw in, and their canvas, of this size in pixels."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    return FigureCanvasAgg(figure), figure.subplots()


def pixels(canvas: FigureCanvasAgg) -> UInt8[np.ndarray, "h w 3"]:
    """What has been drawn."""
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
