"""SR3, super-resolution by diffusion, in JAX.

    from sr3_jax import Upscaler
    upscaler = Upscaler.load("faces-16-64")

The public names are imported only when they are first used, so that `import sr3_jax` is fast and
never touches TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr3_jax.checkpoints.checkpoint import Checkpoint
    from sr3_jax.checkpoints.names import load_checkpoint
    from sr3_jax.errors import UserError
    from sr3_jax.inference.editor import Editor
    from sr3_jax.inference.generator import Generator
    from sr3_jax.inference.upscaler import Upscaler

__version__ = "0.2.0"  # the only place: setup.py reads it here

__all__ = ["Checkpoint", "Editor", "Generator", "Upscaler", "UserError", "load_checkpoint"]

_HOME = {
    "Checkpoint": "sr3_jax.checkpoints.checkpoint",
    "load_checkpoint": "sr3_jax.checkpoints.names",
    "UserError": "sr3_jax.errors",
    "Editor": "sr3_jax.inference.editor",
    "Generator": "sr3_jax.inference.generator",
    "Upscaler": "sr3_jax.inference.upscaler",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sr3_jax' has no attribute {name!r}")
