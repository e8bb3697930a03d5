"""The trained networks that come with the package.

Each is a .safetensors file of its EMA weights, its config and its data card.
"""

from importlib import resources


def shipped() -> list[str]:
    """The names of these networks, sorted, as `--checkpoint` takes them."""
    names = [entry.name for entry in resources.files(__name__).iterdir()]
    return sorted(
        name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")
    )
