"""Qt resource files: what Qt's own compiler writes, and damage."""

import struct
import zlib
from pathlib import PurePosixPath

import pytest

from sr3_jax.datasets import qt_resources

pytestmark = pytest.mark.fast

# By hand, version 1: a folder "a" with the files "b.txt" (plain) and "c.txt" (zlib).
NAMES = b"".join(
    struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in ("a", "b.txt", "c.txt")
)
FIRST, SECOND, THIRD = 0, 8, 8 + 16
ZIPPED = struct.pack(">I", 5) + zlib.compress(b"world")
DATA = struct.pack(">I", 5) + b"hello" + struct.pack(">I", len(ZIPPED)) + ZIPPED


def tree(children=2):
    return (
        struct.pack(">IHII", 0, 2, 1, 1)
        + struct.pack(">IHII", FIRST, 2, children, 2)
        + struct.pack(">IHHHI", SECOND, 0, 0, 0, 0)
        + struct.pack(">IHHHI", THIRD, 1, 0, 0, 9)
    )


def file(nodes, magic=b"qres"):
    start = 20
    return (
        struct.pack(">4s4I", magic, 1, start, start + len(nodes), start + len(nodes) + len(DATA))
        + nodes
        + DATA
        + NAMES
    )


def test_files_are_found_by_their_paths_and_decompressed():
    found = qt_resources.read(file(tree()), lambda path: True)
    assert found == {PurePosixPath("a/b.txt"): b"hello", PurePosixPath("a/c.txt"): b"world"}
    assert list(qt_resources.read(file(tree()), lambda path: path.match("c.*"))) == [
        PurePosixPath("a/c.txt")
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged"),
        (file(tree(), b"rqes"), "no Qt resource file"),
        (file(tree())[:-12], "damaged"),
        (file(tree())[:40], "damaged"),
        (file(tree(2**31)), "endless"),
        (file(struct.pack(">IHII", 0, 2, 1, 0)), "endless"),  # a folder that holds itself
        (file(tree()[:-10] + struct.pack(">HHHI", 4, 0, 0, 9)), "zstd"),
        (file(tree()[:-10] + struct.pack(">HHHI", 1, 0, 0, 0)), "damaged"),  # zlib, but it is not
    ],
)
def test_damage_is_one_error(data, words):
    with pytest.raises(ValueError, match=words):
        qt_resources.read(data, lambda path: True)
