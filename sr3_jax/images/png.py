"""The chunks of PNG files, for what Pillow cannot do: read and add some without decoding pixels."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TypeAlias

Bytes: TypeAlias = io.BytesIO | io.BufferedReader  # a file that can be searched in
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(SIGNATURE) + 25  # the signature and the chunk IHDR
# Those that tell how pixels are stored
_PIXELS = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"bKGD", b"sBIT")
)


def ancillary(file: Bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that have nothing to do with pixels, (kind, the whole chunk), without the rest."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind in _PIXELS:
            file.seek(length + 4, io.SEEK_CUR)
        else:
            yield kind, head + file.read(length + 4)


def content(data: bytes, wanted: bytes) -> bytes:
    """What the first chunk of a kind before the pixels holds; empty if there is none."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == wanted:
            return data[at + 8 : at + 8 + length]
        if kind == b"IDAT":
            break
        at += 12 + length
    return b""


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk."""
    check = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")


def without_pixels(file: Bytes) -> bytes:
    """A PNG of one grey pixel with all that the file holds beside its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    rest = [whole for _, whole in ancillary(file)]
    pixel = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"".join((SIGNATURE, header, *rest, pixel, chunk(b"IEND", b"")))


def with_chunks(data: bytes, more: bytes) -> bytes:
    """The file with further chunks after its header."""
    return data[:_HEADER_END] + more + data[_HEADER_END:]
