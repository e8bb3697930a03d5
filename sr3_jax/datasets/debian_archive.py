"""Packages from Debian's archive: downloaded by apt-get, or found in a folder."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from sr3_jax.data.source import DataError


def packages(
    names: Iterable[str], given: Path | None, temporary: Path, what: str
) -> dict[str, Path]:
    """The .deb file of each package.

    Args:
      names: of the packages.
      given: a folder with their files; None: apt-get downloads them.
      temporary: the folder that they are downloaded to.
      what: is wanted of them, for the error.

    Raises:
      DataError: they cannot be downloaded, or there is not exactly one file of each.
    """
    names = list(names)
    return _find(names, given or _fetch(names, temporary, what))


def _by_hand(names: list[str]) -> str:
    return (
        f"download {', '.join(names)} from Debian's archive, "
        "and give the folder with the .deb files as --packages=DIR"
    )


def _fetch(names: list[str], folder: Path, what: str) -> Path:
    if shutil.which("apt-get") is None:
        raise DataError(f"there is no apt-get here to fetch {what} with; {_by_hand(names)}")
    got = subprocess.run(
        ["apt-get", "download", *names], cwd=folder, capture_output=True, text=True
    )
    if got.returncode:
        said = (
            [line for line in got.stderr.splitlines() if line.startswith("E:")]
            or got.stderr.splitlines()
            or ["no word"]
        )
        raise DataError(
            f"`apt-get download` failed ({said[0]}); run apt-get update and try again, "
            f"or {_by_hand(names)}"
        )
    return folder


def _find(names: list[str], folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"--packages={folder} is not a folder")
    found = {name: sorted(folder.glob(f"{name}_*.deb")) for name in names}
    if missing := [name for name, files in found.items() if not files]:
        raise DataError(
            f"--packages={folder} holds no {missing[0]}_VERSION_all.deb; {_by_hand(names)}"
        )
    for name, files in found.items():
        if len(files) > 1:
            raise DataError(
                f"--packages={folder} holds {len(files)} versions of {name}; "
                f"leave one of {', '.join(map(str, files))}"
            )
    return {name: files[0] for name, files in found.items()}
