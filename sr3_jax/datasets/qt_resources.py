"""Qt resource files (.rcc), read without Qt: a tree of folders in one file.

Programs ship their pictures in such files. The format, big-endian, numbers of bits in parentheses:
"qres", then version and the offsets of tree, data and names (32 each). A node of the tree has 14
bytes, 22 from version 2 on: offset of its name (32), flags (16), then for a folder the number and
index of its children (32 each), for a file country and language (16 each) and the offset of its
data (32); version 2 adds the time of change (64). A name is its length (16), a hash (32) and
UTF-16; data are their length (32) and the bytes.

Nothing is unpacked: files are read into memory, so that no path in a resource file can make us
write outside of a folder.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

COMPRESSED, FOLDER, COMPRESSED_ZSTD = 1, 2, 4  # flags of a node
MOST_NODES = 100_000  # a tree with more, or with a cycle, is damaged
LARGEST = 2**28  # bytes of one decompressed file


def read(data: bytes, wanted: Callable[[PurePosixPath], bool]) -> dict[PurePosixPath, bytes]:
    """The files in a resource file's bytes `data` of whose path `wanted` is true.

    Raises:
      ValueError: it is damaged, or a wanted file is compressed by zstd. Pictures never are, since
        their own formats compress already.
    """
    try:
        return {
            path: _content(data, flags, start)
            for path, flags, start in _files(data)
            if wanted(path)
        }
    except (struct.error, UnicodeDecodeError, zlib.error, RecursionError) as error:
        raise ValueError(f"it is damaged ({error})") from error


def _files(data: bytes) -> Iterator[tuple[PurePosixPath, int, int]]:
    """Path, flags, and offset of the data, of every file."""
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres":
        raise ValueError("it is no Qt resource file")
    size = 14 if version < 2 else 22
    waiting, seen = [(PurePosixPath(), 0)], 0
    while waiting:
        parent, node = waiting.pop()
        seen += 1
        if seen > MOST_NODES:
            raise ValueError("its tree is endless")
        name, flags = struct.unpack_from(">IH", data, tree + node * size)
        path = parent / _name(data, names + name) if node else parent  # the root has no name
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", data, tree + node * size + 6)
            if count > MOST_NODES:
                raise ValueError("its tree is endless")
            waiting += [(path, first + child) for child in range(count)]
        else:
            (start,) = struct.unpack_from(">I", data, tree + node * size + 10)
            yield path, flags, contents + start


def _name(data: bytes, start: int) -> str:
    (length,) = struct.unpack_from(">H", data, start)
    return struct.unpack_from(f"{2 * length}s", data, start + 6)[0].decode("utf-16-be")


def _content(data: bytes, flags: int, start: int) -> bytes:
    (length,) = struct.unpack_from(">I", data, start)
    (content,) = struct.unpack_from(f"{length}s", data, start + 4)
    if flags & COMPRESSED_ZSTD:
        raise ValueError("a file in it is compressed by zstd, which is not read here")
    if flags & COMPRESSED:  # by zlib, after 4 bytes with the length once decompressed
        stream = zlib.decompressobj()
        content = stream.decompress(content[4:], LARGEST)
        if not stream.eof:
            raise ValueError("it is damaged (a compressed file in it is incomplete)")
    return content
