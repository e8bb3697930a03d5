"""Data cards: what the training data are, whose, and under which licence, as Markdown."""

from ml_collections import ConfigDict

from sr3_jax.data.faces import ORL_CARD
from sr3_jax.data.source import DataError
from sr3_jax.runtime import paths
from sr3_jax.runtime.paths import AnyPath

DATA_CARD = "DATA.md"  # in a folder of images: what they are, whose, under which licence


def data_card(config: ConfigDict) -> str:
    """What there is to read about the config's training data, Markdown: DATA.md of its folder, for instance; or empty."""
    if config.data.source == "orl":
        return ORL_CARD
    if config.data.source not in ("folder", "records") or not config.data.folder:
        return ""
    return card_in(paths.parse(config.data.folder))


def card_in(folder: AnyPath) -> str:
    """The text of a folder's DATA.md; empty, too, when that is out of reach: those who have weights may not have the data."""
    try:
        return (folder / DATA_CARD).read_text()
    except Exception:  # the drivers of object stores have errors of their own
        return ""


def read_card(path: AnyPath) -> str:
    """The text of a data card's file; raises DataError."""
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a data card: {getattr(error, 'strerror', None) or error}"
        ) from error
