"""`sr3 prepare photos`: the photographs in three of Debian's packages, which `photos-4x` was trained on, as squares.

DATA.md, beside the records, credits every photograph as its package's copyright file does.
"""

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sr3_jax import images
from sr3_jax.atomic import disk_errors, replacing
from sr3_jax.data import deb, prepare
from sr3_jax.data.records import read_manifest
from sr3_jax.data.sources import DATA_CARD, DataError, is_held_out
from sr3_jax.paths import AnyPath

NAME = "photos"
SIZE, TILES, DETAIL = 160, (2, 3, 4), 2.5  # what photos-4x was trained on


class Package(NamedTuple):
    folder: str  # its .jpg files are the photographs: not those of folders in it
    version: str  # the one that photos-4x was trained on
    photographs: int
    digest: str  # of their names and contents


PACKAGES = {
    "lomiri-wallpapers-16.04": Package("usr/share/backgrounds", "20.04.0-2", 15, "ac78b627a10ef84d"),
    "lomiri-wallpapers-20.04": Package("usr/share/backgrounds", "20.04.0-2", 4, "1d7b80c185de2663"),
    "mate-backgrounds": Package("usr/share/backgrounds/mate/nature", "1.26.0-1", 12, "9e27d2bbaa13b592"),
}


class Photograph(NamedTuple):
    name: str
    width: int
    height: int
    sha256: str
    credit: deb.Credit | None


class Contents(NamedTuple):
    """The photographs of one package."""

    package: str
    version: str
    copyright: str
    photographs: Sequence[Photograph]

    @property
    def differs(self) -> str:
        """In a sentence, if these are not the photographs that photos-4x was trained on."""
        known = PACKAGES[self.package]
        if _digest({photograph.name: photograph.sha256 for photograph in self.photographs}) == known.digest:
            return ""
        return (
            f"the photographs in {self.package} {self.version} ({len(self.photographs)}) are not those in version "
            f"{known.version} ({known.photographs}), which photos-4x was trained on"
        )


def prepare_photos(
    output: AnyPath,
    packages: Path | None = None,
    *,
    size: int = SIZE,
    method: str = "area",
    encoding: str = "png",
    tiles: Sequence[int] = TILES,
    detail: float = DETAIL,
    **options: Any,
) -> prepare.Prepared:
    """Writes or completes `output`, from the .deb files in the folder `packages`, or else as apt-get downloads them.

    With the options of prepare.prepare. Raises UserError as that does, and when a package or a photograph is missing or
    damaged. A complete `output` needs no packages.
    """
    done = prepare.finished(output, prepare.Settings(NAME, "", size, method, encoding, [*tiles], detail))
    if done and (output / DATA_CARD).exists():
        return done
    with tempfile.TemporaryDirectory(prefix="sr3-") as temporary:
        folder, photographs = Path(temporary), Path(temporary) / NAME
        photographs.mkdir()
        with disk_errors(folder):
            contents = [_extract(file, name, photographs) for name, file in _find(packages or _fetch(folder)).items()]
        done = prepare.prepare(
            str(photographs),
            output,
            name=NAME,
            size=size,
            method=method,
            encoding=encoding,
            tiles=tiles,
            detail=detail,
            **options,
        )
    with disk_errors(output), replacing(output / DATA_CARD) as temporary_card:
        temporary_card.write_text(card(contents, output, size, tiles, detail))
    return done._replace(notes=[one.differs for one in contents if one.differs])


def _fetch(folder: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise DataError(f"there is no apt-get here to fetch the photographs with; {_BY_HAND}")
    got = subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True)
    if got.returncode:
        said = [line for line in got.stderr.splitlines() if line.startswith("E:")] or got.stderr.splitlines() or ["no word"]
        raise DataError(f"`apt-get download` failed ({said[0]}); run apt-get update and try again, or {_BY_HAND}")
    return folder


_BY_HAND = f"download {', '.join(PACKAGES)} from Debian's archive, and give the folder with the .deb files as --packages=DIR"


def _find(folder: Path) -> dict[str, Path]:
    """The file of each package; raises DataError when there is not exactly one."""
    if not folder.is_dir():
        raise DataError(f"--packages={folder} is not a folder")
    found = {name: sorted(folder.glob(f"{name}_*.deb")) for name in PACKAGES}
    if missing := [name for name, files in found.items() if not files]:
        raise DataError(f"--packages={folder} holds no {missing[0]}_VERSION_all.deb; {_BY_HAND}")
    for name, files in found.items():
        if len(files) > 1:
            raise DataError(
                f"--packages={folder} holds {len(files)} versions of {name}; leave one of {', '.join(map(str, files))}"
            )
    return {name: files[0] for name, files in found.items()}


def _extract(file: Path, name: str, folder: Path) -> Contents:
    """Writes a package's photographs to `folder`, each decoded once to see that it can be."""
    notice, place = f"usr/share/doc/{name}/copyright", PurePosixPath(PACKAGES[name].folder)
    package = deb.read(file, lambda path: str(path) == notice or (path.parent == place and path.suffix == ".jpg"))
    if package.name != name:
        raise DataError(f"{file} is the package {package.name}, not {name}")
    copyright = package.files.pop(notice, b"").decode(errors="replace")
    if not package.files:
        raise DataError(
            f"{file} holds no photographs (looked for {place}/*.jpg); photos-4x was trained on those of version "
            f"{PACKAGES[name].version}"
        )
    photographs = []
    for path, data in sorted(package.files.items()):
        image = PurePosixPath(path).name
        if not images.is_image_name(folder / image) or (folder / image).exists():
            raise DataError(f"{file} holds {path}, a name that is hidden or that another package has too")
        height, width, _ = images.decode(data, None, f"{path} in {file}").pixels.shape
        (folder / image).write_bytes(data)
        credit = deb.credit(copyright, path)
        photographs.append(Photograph(image, width, height, hashlib.sha256(data).hexdigest(), credit))
    return Contents(name, package.version, copyright, photographs)


def _digest(photographs: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{name} {sha256}" for name, sha256 in sorted(photographs.items())).encode()).hexdigest()[
        :16
    ]


# -- DATA.md


def card(contents: Sequence[Contents], output: AnyPath, size: int, tiles: Sequence[int], detail: float) -> str:
    """The data card of the squares in `output`, as Markdown."""
    ids = [id for shard in read_manifest(output)["shards"].values() for id in shard]
    squares = Counter(id.partition("#")[0] for id in ids)
    count, factors = sum(len(one.photographs) for one in contents), ", ".join(map(str, tiles))
    lines = [
        "# Data",
        "",
        f"{len(ids):,} squares of {size}×{size} pixels, cut from {count} photographs in packages of Debian by",
        "",
        f"    sr3 prepare {NAME} --size={size} --tiles={factors.replace(' ', '')} --detail={detail:g} --output=DIR",
        "",
        f"Each photograph was reduced by {factors} (means of blocks of pixels) and cut into squares side by side. Left out: "
        f"squares that 4× bicubic restores to within {detail:g} levels of 255 (root mean square).",
    ]
    held_out = [photograph.name for one in contents for photograph in one.photographs if is_held_out(photograph.name)]
    if held_out:
        lines += ["", f"Held out from training, unless `data.eval_folder` is set: {', '.join(held_out)}."]
    for one in contents:
        lines += ["", f"## {one.package} {one.version}", "", *_table(one, squares)]
    links = {licence: _link(licence) for one in contents for licence in _licences(one)}
    if any(links.values()):
        lines += ["", "Licences: " + ", ".join(f"[{licence}]({link})" for licence, link in links.items() if link)]
    return "\n".join(lines) + "\n"


def _table(contents: Contents, squares: Mapping[str, int]) -> list[str]:
    source = (deb.paragraphs(contents.copyright) or [{}])[0].get("source", "")
    licences = ", ".join(f"{licence} ({count})" for licence, count in _licences(contents).most_common())
    lines = [f"Licences: {licences}." + (f" Source: {' '.join(source.split())}" if source else ""), ""]
    if contents.differs:
        lines += [f"Note: {contents.differs}.", ""]
    lines += ["| photograph | pixels | squares | sha256 | copyright | licence |", "|---|---|---:|---|---|---|"]
    for name, width, height, sha256, credit in contents.photographs:
        holders, licence, url = credit or deb.Credit("see below", "see below", "")
        cells = [name, f"{width}×{height}", str(squares[name]), sha256[:12], f"{holders} {url}".strip(), licence]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if any(photograph.credit is None for photograph in contents.photographs):
        quoted = contents.copyright.strip() or "(The package has no copyright file.)"
        quoted = quoted if len(quoted) <= 1000 else quoted[:1000] + "…"
        lines += ["", f"From usr/share/doc/{contents.package}/copyright:", "", *(f"> {line}" for line in quoted.splitlines())]
    return lines


def _licences(contents: Contents) -> Counter[str]:
    return Counter(photograph.credit.licence if photograph.credit else "see below" for photograph in contents.photographs)


def _link(licence: str) -> str:
    """Where the text of a licence is, by the names that Debian gives them; empty for others."""
    if match := re.fullmatch(r"CC-(BY(?:-(?:NC|SA|ND))*)-(\d\.\d)", licence):
        return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/"
    return {
        "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
        "GPL-2+": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
    }.get(licence, "")
