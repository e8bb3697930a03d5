"""`sr3 prepare photos`: the photographs in five Debian packages, cut into squares.

DATA.md, beside the records, credits every photograph as its package's copyright file does. Some
photographs (VALIDATION) are never trained on: they are there to choose recipes, noise levels and
defaults by.
"""

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sr3_jax.data.cards import DATA_CARD
from sr3_jax.data.records import read_manifest
from sr3_jax.data.source import DataError
from sr3_jax.datasets import deb, debian_archive, prepare, qt_resources
from sr3_jax.images import arrays
from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath

NAME = "photos"
OPTIONS = prepare.Options(256, tiles=(2, 3, 4), detail=2.5)  # what photos-4x is trained on
INSIDE = "!"  # between the path of a Qt resource file and a path in it


class Package(NamedTuple):
    """A Debian package with photographs, as it was when photos-4x was trained."""

    version: str
    photographs: int  # how many
    digest: str  # of the photographs' names and contents
    patterns: tuple[str, ...]  # of the photographs' paths
    left_out: Mapping[str, str] = {}  # reason: patterns of the images that are not taken
    root: str = ""  # folder that is cut off a photograph's name; empty: all folders are


_RESOURCES = "usr/share/gcompris-qt/rcc"
_ACTIVITIES = "gcompris/src/activities"
_PLASMA = "usr/share/wallpapers"
_BACKGROUNDS = "usr/share/backgrounds"

PACKAGES = {
    "lomiri-wallpapers-16.04": Package(
        "20.04.0-2",
        13,
        "b21f38008aa43987",
        (f"{_BACKGROUNDS}/*.jpg",),
        {
            "renderings and textures": "analogpattern_by_Peter_Nerlich.jpg "
            "umang_by_Abhishek_Mudgal.jpg"
        },
    ),
    "lomiri-wallpapers-20.04": Package(
        "20.04.0-2",
        1,
        "037c2ff2f0db11cc",
        (f"{_BACKGROUNDS}/*.jpg",),
        {
            "renderings and drawings": "Fossa_by_Jasper_Roks.jpg Infinite-Sea_by_Aury88.jpg "
            "Painting-Colors_by__herobrine7gamer.jpg",
        },
    ),
    "mate-backgrounds": Package(
        "1.26.0-1",
        12,
        "8e2edebe6f6361a3",
        (f"{_BACKGROUNDS}/mate/nature/*.jpg",),
        {"drawings and renderings": "abstract/* desktop/*"},
    ),
    "gcompris-qt-data": Package(
        "3.1-2",
        121,
        "a2212d89cabcd8e4",
        (
            f"{_RESOURCES}/erase.rcc!{_ACTIVITIES}/erase/resource/*.webp",
            f"{_RESOURCES}/explore_farm_animals.rcc!"
            f"{_ACTIVITIES}/explore_farm_animals/resource/animals/*.webp",
            f"{_RESOURCES}/explore_world_animals.rcc!"
            f"{_ACTIVITIES}/explore_world_animals/resource/animals/*.webp",
            f"{_RESOURCES}/explore_world_music.rcc!"
            f"{_ACTIVITIES}/explore_world_music/resource/music/*.webp",
            f"{_RESOURCES}/explore_monuments.rcc!{_ACTIVITIES}/explore_monuments/resource/*/*.webp",
            f"{_RESOURCES}/clickgame.rcc!{_ACTIVITIES}/clickgame/resource/sea?.webp",
        ),
        {
            "paintings and their pieces": "details/resource/image/* paintings/*",
            "photographs with white holes and cut-outs": "babyshapes/* clickgame/resource/[!s]*",
            "smaller than 512 pixels": "categorization/* details/resource/image/* lang/* "
            "leftright/* louis-braille/*",
            "planets on black": "gravity/* solar_system/*",
            "maps and drawings": "*.svg",
        },
        _ACTIVITIES,
    ),
    "plasma-workspace-wallpapers": Package(
        "4:5.27.5-2",
        11,
        "91ab37ff35c8d0ea",
        tuple(
            f"{_PLASMA}/{name}/contents/images/2560x1600.jpg"
            for name in (
                "BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite "
                "OneStandsOut Path summer_1am"
            ).split()
        ),
        {
            "paintings, drawings and renderings": "Autumn/* Elarun/* FlyingKonqui/* "
            "*/contents/images/5120x2880.*"
        },
        _PLASMA,
    ),
}

# Held out, some of every kind: animals, buildings, people, things, plants, water, landscapes, and
# letters (on the drum).
VALIDATION = tuple(
    """
    lomiri-wallpapers-16.04/Picture_1A_by_freespace.jpg
    lomiri-wallpapers-16.04/Wine_by_Jakkub_Mede.jpg
    lomiri-wallpapers-16.04/life_by_Aitzol_Berasategi.jpg
    mate-backgrounds/Dune.jpg
    mate-backgrounds/LadyBird.jpg
    gcompris-qt-data/erase/resource/kitten.webp
    gcompris-qt-data/erase/resource/chamaeleon.webp
    gcompris-qt-data/erase/resource/macaque.webp
    gcompris-qt-data/explore_farm_animals/resource/animals/chicken.webp
    gcompris-qt-data/explore_world_animals/resource/animals/lemur.webp
    gcompris-qt-data/explore_world_music/resource/music/america.webp
    gcompris-qt-data/explore_world_music/resource/music/mexico.webp
    gcompris-qt-data/explore_monuments/resource/france/reimsCathedral.webp
    gcompris-qt-data/explore_monuments/resource/germany/brandenburgGate.webp
    gcompris-qt-data/explore_monuments/resource/india/hawaMahal.webp
    gcompris-qt-data/explore_monuments/resource/usa/canyondeChelly.webp
    plasma-workspace-wallpapers/EveningGlow/contents/images/2560x1600.jpg
    plasma-workspace-wallpapers/FallenLeaf/contents/images/2560x1600.jpg
    """.split()
)


class Photograph(NamedTuple):
    """A photograph that was extracted from a package."""

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
        """A sentence if these are not the photographs that photos-4x was trained on; else empty."""
        known = PACKAGES[self.package]
        if (
            _digest({photograph.name: photograph.sha256 for photograph in self.photographs})
            == known.digest
        ):
            return ""
        return (
            f"the photographs in {self.package} {self.version} ({len(self.photographs)}) are not "
            f"those in version {known.version} ({known.photographs}), "
            "which photos-4x was trained on"
        )


def prepare_photos(
    output: AnyPath,
    packages: Path | None = None,
    options: prepare.Options = OPTIONS,
    **others: Any,
) -> prepare.Prepared:
    """Write or complete the squares of the photographs in the folder `output`.

    If it is complete already, nothing is fetched or read.

    Args:
      output: The folder to write.
      packages: A folder with the .deb files; None: apt-get downloads them.
      options: How photographs become records.
      **others: Further arguments of prepare.prepare.

    Raises:
      UserError: As prepare.prepare does, or a package or a photograph is missing or damaged.
    """
    done = prepare.finished(output, options.settings(NAME))
    if done and (output / DATA_CARD).exists():
        return done
    with tempfile.TemporaryDirectory(prefix="sr3-") as temporary:
        folder = Path(temporary)
        photographs = folder / NAME
        with disk_errors(folder):
            contents = [
                _extract(file, name, photographs)
                for name, file in debian_archive.packages(
                    PACKAGES, packages, folder, "the photographs"
                ).items()
            ]
        done = prepare.prepare(
            str(photographs), output, options, name=NAME, held_out=VALIDATION, **others
        )
    with disk_errors(output):
        write_text(output / DATA_CARD, card(contents, output, options))
    return done._replace(notes=[one.differs for one in contents if one.differs])


def _extract(file: Path, name: str, folder: Path) -> Contents:
    """Writes a package's photographs to `folder`/`name`, after decoding each as a check."""
    notice, known = f"usr/share/doc/{name}/copyright", PACKAGES[name]
    outer = {pattern.partition(INSIDE)[0] for pattern in known.patterns}
    package = deb.read(
        file, lambda path: str(path) == notice or any(path.match(pattern) for pattern in outer)
    )
    if package.name != name:
        raise DataError(f"{file} is the package {package.name}, not {name}")
    copyright = package.files.pop(notice, b"").decode(errors="replace")
    photographs = []
    for path, data in sorted(_photographs(package.files, known, file).items()):
        image = name / PurePosixPath(path).relative_to(known.root or PurePosixPath(path).parent)
        if not arrays.is_image_name(folder / image):
            raise DataError(f"{file} holds {path}, a name that is hidden")
        height, width, _ = arrays.decode(data, None, f"{path} in {file}").pixels.shape
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        credit = deb.credit(copyright, path)
        photographs.append(Photograph(str(image), width, height, digest, credit))
    return Contents(name, package.version, copyright, photographs)


def _photographs(files: Mapping[str, bytes], package: Package, where: Path) -> dict[str, bytes]:
    """The photographs by their paths, in the package or in one of its Qt resource files.

    Raises DataError when there are none.
    """
    found: dict[str, bytes] = {}
    for pattern in package.patterns:
        outer, _, inner = pattern.partition(INSIDE)
        for path, data in files.items():
            if PurePosixPath(path).match(outer):
                found |= _inside(data, inner, f"{path} in {where}") if inner else {path: data}
    left_out = [pattern for patterns in package.left_out.values() for pattern in patterns.split()]
    found = {
        path: data
        for path, data in found.items()
        if not any(PurePosixPath(path).match(one) for one in left_out)
    }
    if not found:
        raise DataError(
            f"{where} holds no photographs (looked for {package.patterns[0]}); "
            f"photos-4x was trained on those of version {package.version}"
        )
    return found


def _inside(resources: bytes, pattern: str, name: str) -> dict[str, bytes]:
    """The files of a Qt resource file, called `name` in errors, whose paths match."""
    try:
        found = qt_resources.read(resources, lambda path: path.match(pattern))
    except ValueError as error:
        raise DataError(f"{name} cannot be read as a Qt resource file: {error}") from error
    return {str(path): data for path, data in found.items()}


def _digest(photographs: Mapping[str, str]) -> str:
    return hashlib.sha256(
        "\n".join(f"{name} {sha256}" for name, sha256 in sorted(photographs.items())).encode()
    ).hexdigest()[:16]


# -- DATA.md


def card(contents: Sequence[Contents], output: AnyPath, options: prepare.Options) -> str:
    """The data card of the squares in `output`, as Markdown."""
    ids = [id for shard in read_manifest(output)["shards"].values() for id in shard]
    squares = Counter(id.partition("#")[0] for id in ids)
    names = [photograph.name for one in contents for photograph in one.photographs]
    size = options.size
    factors = ", ".join(map(str, options.tiles))
    detail = options.detail
    lines = [
        "# Data",
        "",
        f"{len(ids):,} squares of {size}×{size} pixels, cut from {len(names)} photographs in "
        "packages of Debian by",
        "",
        f"    sr3 prepare {NAME} --size={size} --tiles={factors.replace(' ', '')} "
        f"--detail={detail:g} --output=DIR",
        "",
        f"Each photograph was reduced by {factors} (means of blocks of pixels) and cut into "
        f"squares that cover it. Left out: squares that 4× bicubic restores to within {detail:g} "
        "levels of 255 (root mean square).",
    ]
    if held_out := [name for name in names if name in VALIDATION]:
        lines += ["", f"For validation, never trained on: {', '.join(held_out)}."]
    for one in contents:
        lines += ["", f"## {one.package} {one.version}", "", *_table(one, squares)]
    links = {licence: _link(licence) for one in contents for licence in _licences(one)}
    if any(links.values()):
        lines += [
            "",
            "Licences: "
            + ", ".join(f"[{licence}]({link})" for licence, link in links.items() if link),
        ]
    return "\n".join(lines) + "\n"


def _table(contents: Contents, squares: Mapping[str, int]) -> list[str]:
    source = (deb.paragraphs(contents.copyright) or [{}])[0].get("source", "")
    licences = ", ".join(
        f"{licence} ({count})" for licence, count in _licences(contents).most_common()
    )
    lines = [
        f"Licences: {licences}." + (f" Source: {' '.join(source.split())}" if source else ""),
        "",
    ]
    if contents.differs:
        lines += [f"Note: {contents.differs}.", ""]
    for reason, patterns in PACKAGES[contents.package].left_out.items():
        lines += [f"Left out, {reason}: `{'`, `'.join(patterns.split())}`.", ""]
    lines += [
        "| photograph | pixels | squares | sha256 | copyright | licence |",
        "|---|---|---:|---|---|---|",
    ]
    for name, width, height, sha256, credit in contents.photographs:
        holders, licence, url = credit or deb.Credit("see below", "see below", "")
        first, *others = holders.split("; ")
        holders = f"{first} and {len(others)} others" if len(others) > 3 else holders
        cells = [
            name.removeprefix(f"{contents.package}/"),
            f"{width}×{height}",
            str(squares[name]),
            sha256[:12],
            f"{holders} {url}".strip(),
            licence,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if any(photograph.credit is None for photograph in contents.photographs):
        quoted = contents.copyright.strip() or "(The package has no copyright file.)"
        quoted = quoted if len(quoted) <= 1000 else quoted[:1000] + "…"
        lines += [
            "",
            f"From usr/share/doc/{contents.package}/copyright:",
            "",
            *(f"> {line}" for line in quoted.splitlines()),
        ]
    return lines


def _licences(contents: Contents) -> Counter[str]:
    return Counter(
        photograph.credit.licence if photograph.credit else "see below"
        for photograph in contents.photographs
    )


def _link(licence: str) -> str:
    """Where the text of a licence is, by the names that Debian gives them; empty for others."""
    if match := re.fullmatch(r"CC-(BY(?:-(?:NC|SA|ND))*)-(\d\.\d)", licence):
        return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/"
    return {
        "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
        "GPL-2+": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
        "GPL-3": "https://www.gnu.org/licenses/gpl-3.0.html",
        "GPL-3+": "https://www.gnu.org/licenses/gpl-3.0.html",
        "GFDL-NIV-1.2": "https://www.gnu.org/licenses/old-licenses/fdl-1.2.html",
    }.get(licence, "")
