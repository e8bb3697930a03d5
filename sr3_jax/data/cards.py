"""Data cards: Markdown that says what the training data are, whose, and under which licence."""

from ml_collections import ConfigDict

from sr3_jax.data.faces import ORL_CARD
from sr3_jax.data.source import DataError
from sr3_jax.runtime import paths
from sr3_jax.runtime.paths import AnyPath

DATA_CARD = "DATA.md"  # the name of a folder's data card


def data_card(config: ConfigDict) -> str:
    """The data card of a config's training data, such as DATA.md of its folder; empty for none."""
    if config.data.source == "orl":
        return ORL_CARD
    if config.data.source not in ("folder", "records") or not config.data.folder:
        return ""
    return card_in(paths.parse(config.data.folder))


def card_in(folder: AnyPath) -> str:
    """The text of a folder's DATA.md; empty if there is none or it cannot be reached.

    That is no error: whoever has a checkpoint need not have the data that it was trained on.
    """
    try:
        return (folder / DATA_CARD).read_text()
    except Exception:  # the drivers of object stores have errors of their own
        return ""


def read_card(path: AnyPath) -> str:
    """The text of a data card's file; raises DataError if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a data card: {getattr(error, 'strerror', None) or error}"
        ) from error
