"""Data cards: Markdown that says what the training data are, whose, and under which licence."""

from collections.abc import Mapping
from pathlib import Path

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


def with_ancestors(card: str, ancestors: Mapping[str, tuple[str, str]]) -> str:
    """A data card that also says what those networks learned from which a network begins with.

    Args:
      card: Of the network's own training data.
      ancestors: By what it is to the network, such as "teacher", a checkpoint's name and data card.
    """
    parts = [card.strip()] if card.strip() else []
    for role, (name, theirs) in ancestors.items():
        about = f"## Its {role}, {Path(name).name}, learned from"
        if theirs.strip() == card.strip():
            parts.append(f"{about} the same data")
        else:
            said = theirs.strip() or "Nothing is known: its checkpoint carries no data card."
            parts.append(f"{about} other data\n\n{said}")
    return "\n\n".join(parts) + "\n" if parts else ""


def read_card(path: AnyPath) -> str:
    """The text of a data card's file; raises DataError if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a data card: {getattr(error, 'strerror', None) or error}"
        ) from error
