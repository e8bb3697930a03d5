"""`sr3 prepare photos` by the command line, on small packages with the real ones' names."""

import hashlib
import io
import os
import shutil
import struct
import tarfile
import zlib
from pathlib import PurePosixPath

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from sr3_jax import cli
from sr3_jax.data import cards, source
from sr3_jax.data.records import Records
from sr3_jax.datasets import deb, debian_photos

DEP5 = """Format: https://example.org/copyright-format/1.0/
Source: https://example.org/pictures

Files: *
Copyright: 2001, Everybody
License: CC0-1.0


Files: nature/Sea.jpg
       16.04/Sea.jpg
Copyright: 2018, Jane | Doe <jane@example.org>\u00b4
           2019, "John"
License: CC-BY-4.0
Comment: found at https://example.org/sea

Files: debian/*
Copyright: 2020, Packagers
License: Expat

License: CC-BY-4.0
 Attribution 4.0
 .
 Files: none of this is a field
"""
FREE = "These pictures are free.\n\nDo with them what you like.\n"


def jpeg(seed, width=50, height=34):
    buffer = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    ).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(files, mode="w:xz"):
    """Names → bytes, or the target of a link as text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname, content = tarfile.SYMTYPE, content, b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def ar(members):
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        parts += [
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode(),
            data,
            b"\n" * (len(data) % 2),
        ]
    return b"".join(parts)


def package(name, photographs, copyright=DEP5, version="1-1"):
    """A .deb with these photographs, and beside them what must not be taken."""
    folder = FOLDERS.get(name, "usr/share/backgrounds")
    files = {f"./{folder}/{photograph}": data for photograph, data in photographs.items()}
    files |= {
        f"./{folder}/Link.jpg": "Sea.jpg",
        f"./{folder}/deeper/Deep.jpg": jpeg(100),
        f"./{folder}/note.txt": b"a note",
        f"./{folder}/../../../../../../escaped.jpg": jpeg(101),
        "/usr/share/doc/changelog": b"",
    }
    if copyright:
        files[f"./usr/share/doc/{name}/copyright"] = copyright.encode()
    about = f"Package: {name}\nVersion: {version}\nDescription: pictures\n of the sea\n".encode()
    return ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": tar({"./control": about}),
            "data.tar.xz": tar(files),
        }
    )


def resources(files, zipped=()):
    """A Qt resource file, version 3, of these paths.

    The layout is Qt's own: the children of a folder follow one another.
    """
    names, contents, nodes = b"", b"", []
    tree = {}
    for path, data in files.items():
        node = tree
        *folders, last = path.split("/")
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = (data, path in zipped)
    waiting = [("", tree)]
    first = 1
    for name, node in waiting:
        start = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(node, dict):
            nodes.append(struct.pack(">IHIIQ", start, 2, len(node), first, 0))
            first += len(node)
            waiting += node.items()
            continue
        data, squeezed = node
        stored = struct.pack(">I", len(data)) + zlib.compress(data) if squeezed else data
        nodes.append(struct.pack(">IHHHIQ", start, int(squeezed), 0, 0, len(contents), 0))
        contents += struct.pack(">I", len(stored)) + stored
    nodes = b"".join(nodes)
    places = (24, 24 + len(nodes), 24 + len(nodes) + len(contents))
    return struct.pack(">4s5I", b"qres", 3, *places, 0) + nodes + contents + names


NAMES = list(debian_photos.PACKAGES)
ERASE = "gcompris/src/activities/erase/resource"
FOLDERS = {
    "mate-backgrounds": "usr/share/backgrounds/mate/nature",
    "gcompris-qt-data": "usr/share/gcompris-qt/rcc",
    "plasma-workspace-wallpapers": "usr/share/wallpapers",
}
CONTENTS = {
    "lomiri-wallpapers-16.04": {
        "Sea.jpg": jpeg(1),
        "Land.jpg": jpeg(2),
        "umang_by_Abhishek_Mudgal.jpg": jpeg(9),
    },
    "lomiri-wallpapers-20.04": {"Small.jpg": jpeg(3, 15, 15)},
    "mate-backgrounds": {"Dune.jpg": jpeg(4)},
    "gcompris-qt-data": {
        "erase.rcc": resources(
            {
                f"{ERASE}/Sea.webp": jpeg(5),
                f"{ERASE}/kitten.webp": jpeg(6),
                f"{ERASE}/deeper/Deep.webp": jpeg(7),
                "a.qml": b"{}",
            },
            zipped=[f"{ERASE}/Sea.webp"],
        ),
        "core.rcc": resources({f"{ERASE}/Other.webp": jpeg(7)}),
    },
    "plasma-workspace-wallpapers": {
        "Path/contents/images/2560x1600.jpg": jpeg(8),
        "Path/contents/images/1280x800.jpg": jpeg(8),
        "Autumn/contents/images/2560x1600.jpg": jpeg(10),
    },
}
WHERE = {  # the photographs that are taken, by their names
    "lomiri-wallpapers-16.04": {"Sea.jpg": jpeg(1), "Land.jpg": jpeg(2)},
    "lomiri-wallpapers-20.04": {"Small.jpg": jpeg(3, 15, 15)},
    "mate-backgrounds": {"Dune.jpg": jpeg(4)},
    "gcompris-qt-data": {"erase/resource/Sea.webp": jpeg(5), "erase/resource/kitten.webp": jpeg(6)},
    "plasma-workspace-wallpapers": {"Path/contents/images/2560x1600.jpg": jpeg(8)},
}


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, photographs in CONTENTS.items():
        (folder / f"{name}_1-1_all.deb").write_bytes(
            package(name, photographs, FREE if name == NAMES[2] else DEP5)
        )
    return folder


def run(capsys, tmp_path, *arguments):
    flags = ["--size=16", "--tiles=1,2", "--detail=0", "--workers=1"]
    code = cli.main(["prepare", "photos", *flags, f"--output={tmp_path / 'out'}", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_photographs_become_squares_and_are_credited_and_a_complete_folder_needs_no_packages(
    packages, tmp_path, capsys
):
    code, out, err = run(capsys, tmp_path, f"--packages={packages}")
    assert code == 0, err
    assert (
        f"note: the photographs in {NAMES[0]} 1-1 (2) are not those in version 20.04.0-2 (13), "
        "which photos-4x" in out
    )
    assert f"dropped: {NAMES[1]}/Small.jpg is 15×15, smaller than 16" in out
    count = 6 * (3 * 2 + 1 * 2)  # 50×34: squares at 1, 17, 33 and 1, 17; half of it 25×17
    assert f"{count} images of 16² in 1 files, 1 dropped" in out
    taken = {
        f"{name}/{photograph}" for name, photographs in WHERE.items() for photograph in photographs
    } - {f"{NAMES[1]}/Small.jpg"}
    assert {id.partition("#")[0] for id in Records(tmp_path / "out", 3).ids} == taken
    # Fixed by name, whatever the hash says
    for part, held_out in (("train", False), ("eval", True)):
        photographs = {id.partition("#")[0] for id in Records(tmp_path / "out", 3, part).ids}
        assert photographs == {
            name for name in taken if (name in debian_photos.VALIDATION) == held_out
        }
        assert photographs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "packages"]
    assert not list(tmp_path.rglob("*.jpg"))

    card = (tmp_path / "out" / "DATA.md").read_text()
    for line in (
        f"{count} squares of 16×16 pixels, cut from 7 photographs in packages of Debian by",
        "    sr3 prepare photos --size=16 --tiles=1,2 --detail=0 --output=DIR",
        f"## {NAMES[0]} 1-1",
        "Licences: CC0-1.0 (1), CC-BY-4.0 (1). Source: https://example.org/pictures",
        f"Note: the photographs in {NAMES[2]} 1-1 (1) are not those in version 1.26.0-1 (12), "
        "which photos-4x was trained on.",
        "Left out, renderings and textures: `analogpattern_by_Peter_Nerlich.jpg`, "
        "`umang_by_Abhishek_Mudgal.jpg`.",
        f"| Land.jpg | 50×34 | 8 | {hashlib.sha256(jpeg(2)).hexdigest()[:12]} "
        "| 2001, Everybody | CC0-1.0 |",
        f"| Sea.jpg | 50×34 | 8 | {hashlib.sha256(jpeg(1)).hexdigest()[:12]} "
        '| 2018, Jane \\| Doe; 2019, "John" '
        "https://example.org/sea | CC-BY-4.0 |",
        f"From usr/share/doc/{NAMES[2]}/copyright:",
        "> Do with them what you like.",
    ):
        assert line in card.splitlines()
    assert (
        "For validation, never trained on: mate-backgrounds/Dune.jpg, "
        "gcompris-qt-data/erase/resource/kitten.webp." in card
    )
    assert "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)" in card

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    shutil.rmtree(packages)
    code, out, _ = run(capsys, tmp_path)
    assert (code, out.splitlines()[-2]) == (0, f"{count} images of 16² in 1 files, 1 dropped")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    code, _, err = run(capsys, tmp_path, "--detail=2")
    assert (code, "begun with other settings (detail: 2.0 here, 0.0 there)" in err) == (2, True)


def test_the_packages_that_are_expected_need_no_note_and_a_stopped_run_goes_on(
    packages, tmp_path, capsys, monkeypatch
):
    for name, photographs in WHERE.items():
        digest = debian_photos._digest(
            {
                f"{name}/{file}": hashlib.sha256(data).hexdigest()
                for file, data in photographs.items()
            }
        )
        monkeypatch.setitem(
            debian_photos.PACKAGES, name, debian_photos.PACKAGES[name]._replace(digest=digest)
        )
    code, out, _ = run(capsys, tmp_path, f"--packages={packages}")
    card = tmp_path / "out" / "DATA.md"
    text = card.read_text()
    assert (code, "note" in out, "Note" in text) == (0, False, False)
    card.unlink()
    assert run(capsys, tmp_path, f"--packages={packages}")[0] == 0
    assert card.read_text() == text


def test_apt_get_is_asked_when_no_folder_is_given_and_its_complaint_is_passed_on(
    packages, tmp_path, capsys, monkeypatch
):
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "download {" ".join(NAMES)}" ] && cp {packages}/*.deb .\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert run(capsys, tmp_path)[0] == 0

    program.write_text(
        '#!/bin/sh\necho "W: no matter" >&2\necho "E: Unable to locate package" >&2\nexit 100\n'
    )
    code, _, err = run(capsys, tmp_path, f"--output={tmp_path / 'other'}")
    assert (code, err.count("sr3: ")) == (2, 1)
    for words in (
        "`apt-get download` failed (E: Unable to locate package)",
        *NAMES,
        "Debian's archive",
        "--packages=DIR",
    ):
        assert words in err
    assert not (tmp_path / "other").exists()


def test_without_apt_get_one_sentence_says_what_to_fetch(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(capsys, tmp_path)
    assert (code, err.count("sr3: ")) == (2, 1)
    for words in ("there is no apt-get here", *NAMES, "Debian's archive", "--packages=DIR"):
        assert words in err


def damaged(**members):
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar({"./control": f"Package: {NAMES[0]}\nVersion: 1\n".encode()}),
    }
    return ar(parts | {name.replace("_", "."): data for name, data in members.items()})


DAMAGE = {
    "no archive": (
        b"a web page",
        "cannot be read as a Debian package (ValueError: it is no ar archive)",
    ),
    "empty": (b"", "cannot be read as a Debian package"),
    "cut": (package(NAMES[0], CONTENTS[NAMES[0]])[:-1000], "it ends too early"),
    "no data": (damaged(), "it has no data.tar"),
    "cut photographs": (
        damaged(
            data_tar_xz=tar({f"usr/share/backgrounds/{seed}.jpg": jpeg(seed) for seed in range(9)})[
                :-5000
            ]
        ),
        "cannot be read as a Debian package",
    ),
    "cut data": (
        damaged(data_tar_xz=tar({"a": bytes(10_000)})[:-30]),
        "cannot be read as a Debian package",
    ),
    "data of another kind": (damaged(data_tar_xz=b"no xz"), "cannot be read as a Debian package"),
    "no photographs": (
        damaged(data_tar_xz=tar({})),
        "holds no photographs (looked for usr/share/backgrounds/*.jpg)",
    ),
    "another package": (package(NAMES[1], {}), f"is the package {NAMES[1]}, not {NAMES[0]}"),
    "a photograph that is none": (package(NAMES[0], {"Sea.jpg": b"text"}), "Sea.jpg in"),
    "a photograph that is cut": (package(NAMES[0], {"Sea.jpg": jpeg(0)[:900]}), "Sea.jpg in"),
    "a name that is hidden": (
        package(NAMES[0], {".Sea.jpg": jpeg(0)}),
        ".Sea.jpg, a name that is hidden",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_package_is_named_and_nothing_is_written(packages, tmp_path, capsys, kind):
    data, message = DAMAGE[kind]
    (packages / f"{NAMES[0]}_1-1_all.deb").write_bytes(data)
    code, _, err = run(capsys, tmp_path, f"--packages={packages}")
    assert (code, err.count("sr3: "), "Traceback" in err) == (2, 1, False)
    assert message in err
    assert ".deb" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif("zst" in tarfile.TarFile.OPEN_METH, reason="this Python reads it")
def test_zstd_is_refused_by_name(packages, tmp_path, capsys):
    (packages / f"{NAMES[0]}_1-1_all.deb").write_bytes(damaged(data_tar_zst=b"(\xb5/\xfd"))
    code, _, err = run(capsys, tmp_path, f"--packages={packages}")
    assert (code, "data.tar.zst needs Python 3.14" in err) == (2, True)


def test_what_is_missing_or_given_twice_is_named(packages, tmp_path, capsys, monkeypatch):
    shutil.copy(packages / f"{NAMES[0]}_1-1_all.deb", packages / f"{NAMES[0]}_1-2_all.deb")
    assert f"holds 2 versions of {NAMES[0]}" in run(capsys, tmp_path, f"--packages={packages}")[2]
    (packages / f"{NAMES[2]}_1-1_all.deb").unlink()
    assert (
        f"holds no {NAMES[2]}_VERSION_all.deb" in run(capsys, tmp_path, f"--packages={packages}")[2]
    )
    assert "none is not a folder" in run(capsys, tmp_path, f"--packages={tmp_path / 'none'}")[2]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(jpeg(0))
    monkeypatch.chdir(tmp_path)
    assert "also a folder of images here: write ./photos" in run(capsys, tmp_path)[2]
    assert not (tmp_path / "out").exists()


@pytest.mark.fast
def test_a_package_may_use_other_compression_and_its_links_are_not_followed():
    files = {"./usr/a.jpg": b"1", "./usr/b.jpg": "a.jpg", "../c.jpg": b"3"}
    for mode, suffix in (("w:gz", ".gz"), ("w:bz2", ".bz2"), ("w", "")):
        assert deb._files(
            {f"data.tar{suffix}": tar(files, mode)},
            "data",
            lambda path: path.parent == PurePosixPath("usr"),
        ) == {"usr/a.jpg": b"1"}


@pytest.mark.fast
def test_a_file_is_credited_by_its_own_name_before_a_wildcard_and_by_nothing_that_does_not_fit():
    sea = deb.Credit('2018, Jane | Doe; 2019, "John"', "CC-BY-4.0", "https://example.org/sea")
    assert deb.credit(DEP5, "usr/share/backgrounds/Sea.jpg") == sea
    assert deb.credit(DEP5, "usr/share/backgrounds/Land.jpg") == deb.Credit(
        "2001, Everybody", "CC0-1.0", ""
    )
    assert (
        deb.credit(
            DEP5.replace("Files: *", "Files: nature/*.jpg"), "usr/share/mate/nature/Land.jpg"
        ).licence
        == "CC0-1.0"
    )
    assert (
        deb.credit(DEP5.replace("Files: *", "Files: other/*"), "usr/share/backgrounds/Land.jpg")
        is None
    )
    assert deb.credit(FREE, "usr/share/backgrounds/Sea.jpg") is None
    assert deb.credit("", "usr/share/backgrounds/Sea.jpg") is None


@pytest.mark.fast
def test_a_file_that_was_written_in_another_format_is_credited_by_its_place():
    copyright = DEP5.replace("Files: nature/Sea.jpg", "Files: src/erase/resource/Sea.jpg").replace(
        "       16.04/Sea.jpg\n", ""
    )
    copyright = copyright.replace("Files: debian/*", "Files: src/other/Sea.png")
    assert deb.credit(copyright, "gcompris/src/erase/resource/Sea.webp").licence == "CC-BY-4.0"
    assert deb.credit(copyright, "gcompris/src/other/Sea.webp").licence == "Expat"
    assert deb.credit(copyright, "gcompris/src/third/Sea.webp").licence == "CC0-1.0"


def test_every_photograph_for_validation_is_of_a_package_and_taken():
    for name in debian_photos.VALIDATION:
        package, _, own = name.partition("/")
        known = debian_photos.PACKAGES[package]
        inner = [pattern.rpartition(debian_photos.INSIDE)[2] for pattern in known.patterns]
        path = (
            PurePosixPath(known.root or "usr/share/backgrounds")
            / ("mate/nature" if package[0] == "m" else "")
            / own
        )
        assert any(path.match(pattern) for pattern in inner), name
        assert not any(
            path.match(one) for patterns in known.left_out.values() for one in patterns.split()
        ), name
    assert len(set(debian_photos.VALIDATION)) >= 12


@pytest.mark.fast
def test_a_config_s_data_card_is_its_source_s_or_its_folder_s(tmp_path):
    data = ConfigDict({"source": "folder", "folder": str(tmp_path)})
    assert cards.data_card(ConfigDict({"data": data})) == ""
    (tmp_path / "DATA.md").write_text("My photographs.")
    assert cards.data_card(ConfigDict({"data": data})) == "My photographs."
    (tmp_path / "DATA.md").write_bytes(b"\xff\xfe\xff")
    assert cards.data_card(ConfigDict({"data": data})) == ""  # in the way of nobody who exports
    with pytest.raises(source.DataError, match=r"DATA\.md cannot be read as a data card"):
        cards.read_card(tmp_path / "DATA.md")
    data.source = "orl"
    assert "AT&T Laboratories Cambridge" in cards.data_card(ConfigDict({"data": data}))
    data.source, data.folder = "records", ""
    assert cards.data_card(ConfigDict({"data": data})) == ""
