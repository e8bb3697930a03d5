"""Weights that PyTorch saved (.pth, .pt), read without PyTorch and without running code in them.

PyTorch has had two formats. Both are a pickle of a dictionary that refers to raw arrays: since
version 1.6 in a zip archive, before that one after the other. The unpickler here knows tensors,
storages and dictionaries; anything else in the file is refused.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sr3_jax.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C  # the first number of the older format
# Types of raw arrays, as the pickle names them: torch.FloatStorage
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}
WEIGHTS = dict[str, np.ndarray]


def load(path: Path) -> WEIGHTS:
    """{name: array} of a saved state dict, or of a .safetensors file.

    Raises:
      UserError: it cannot be read, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        found = _load_zip(path) if zipfile.is_zipfile(path) else _load_old(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise any error
        raise UserError(
            f"{path} is no file of weights that can be read safely: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} holds a {type(found).__name__}, not weights by name")
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


def require(
    weights: WEIGHTS, shapes: dict[str, tuple[int, ...]], path: Path, network: str
) -> WEIGHTS:
    """The weights that a network needs, in float32.

    Args:
      weights: by name, as `load` gives them.
      shapes: of the weights that are needed, by name.
      path: of their file, for the error.
      network: its name, for the error.

    Raises:
      UserError: one is missing or has another shape; the message names the first.
    """
    for name, shape in shapes.items():
        if name not in weights:
            raise UserError(f"{path} is not of {network}: it has no {name}")
        if weights[name].shape != shape:
            raise UserError(
                f"{path} is not of {network}: {name} has the shape {weights[name].shape}, "
                f"not {shape}"
            )
    return {name: weights[name].astype(np.float32) for name in shapes}


class _Storage(NamedTuple):
    """A type of raw array. No text in a file can stand for one."""

    dtype: np.dtype


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedIOBase, storage: Callable[[Any], np.ndarray]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
            **{("torch", kind): _Storage(np.dtype(f"<{t}")) for kind, t in STORAGES.items()},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(
                f"{module}.{name} in it is neither a tensor nor a dictionary"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        return self._storage(pid)


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if (
        offset < 0
        or min((*size, *stride), default=0) < 0
        or (0 not in size and last >= len(storage))
    ):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [s * storage.itemsize for s in stride]
    # no copy: files are gigabytes
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        [index] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = index.removesuffix("data.pkl")

        def storage(pid: Any) -> np.ndarray:
            _, kind, key, *_ = pid
            return np.frombuffer(archive.read(f"{folder}data/{key}"), kind.dtype)

        return _Unpickler(io.BytesIO(archive.read(index)), storage).load()


def _load_old(path: Path) -> Any:
    with path.open("rb") as file:
        kept: dict[str, np.ndarray] = {}

        def storage(pid: Any) -> np.ndarray:
            _, kind, key, _, count, view = pid
            if view is not None:
                raise ValueError("views of storages are not known")
            if key not in kept:  # filled below: the arrays follow the dictionary
                kept[key] = np.empty(min(count, path.stat().st_size), kind.dtype)
            return kept[key]

        if _Unpickler(file, storage).load() != MAGIC:
            raise ValueError("it is neither of PyTorch's formats")
        _Unpickler(file, storage).load()  # version of the format
        _Unpickler(file, storage).load()  # sizes of C types
        found = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            count = int.from_bytes(file.read(8), "little")
            read = file.read(count * kept[key].itemsize)
            kept[key][:] = np.frombuffer(read, kept[key].dtype)
        return found
