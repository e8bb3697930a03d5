"""The weights in the package: EMA, config and data card, as .safetensors."""

from importlib import resources


def shipped() -> list[str]:
    """Their names, as `--checkpoint` takes them."""
    names = [entry.name for entry in resources.files(__name__).iterdir()]
    return sorted(
        name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")
    )
