"""The chunks of PNG files, for what Pillow cannot do: read and add some without decoding pixels."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TypeAlias

Bytes: TypeAlias = io.BytesIO | io.BufferedReader  # a file that can be searched in
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(SIGNATURE) + 25  # the signature and the chunk IHDR
_LARGEST_TEXT, _LARGEST_PROFILE = 2**20 - 1, 2**24  # bytes, unpacked; Pillow refuses longer texts
# Those that tell how pixels are stored
_PIXELS = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"bKGD", b"sBIT")
)


def ancillary(file: Bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that have nothing to do with pixels, (kind, the whole chunk), without the rest."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":  # what follows is no part of the picture
            return
        if kind in _PIXELS:
            file.seek(length + 4, io.SEEK_CUR)
        else:
            yield kind, head + file.read(length + 4)


def mended(file: Bytes) -> tuple[Bytes, list[str]]:
    """The file without what Pillow would refuse the picture for, and notes.

    Those are chunks beside the pixels with a wrong checksum, and texts that are huge or damaged.
    The pixels are not read unless there are such.
    """
    cuts, notes, at = list[tuple[int, int]](), dict[str, None](), len(SIGNATURE)
    file.seek(at)
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        end = at + 12 + length
        if kind == b"IEND":
            break
        if kind in _PIXELS:
            file.seek(end)
        else:
            body = file.read(length + 4)
            if fault := _fault(kind, body[:-4], body[-4:]):
                cuts.append((at, end))
                name = _KINDS.get(kind, kind.decode("latin-1"))
                notes[f"its {name} {fault} and was left out"] = None
        at = end
    file.seek(0)
    if not cuts:
        return file, []
    data, kept = file.read(), bytearray()
    for begin, end in zip(
        [0, *(end for _, end in cuts)], [*(at for at, _ in cuts), len(data)], strict=True
    ):
        kept += data[begin:end]
    return io.BytesIO(bytes(kept)), list(notes)


_KINDS = {b"tEXt": "text", b"zTXt": "text", b"iTXt": "text", b"iCCP": "colour profile"}
_KINDS |= {b"eXIf": "EXIF", b"gAMA": "gamma", b"pHYs": "resolution"}


def _fault(kind: bytes, body: bytes, check: bytes) -> str:
    """What is wrong with a chunk; empty if nothing is."""
    if zlib.crc32(kind + body).to_bytes(4, "big") != check:
        return "is damaged"
    packed = b""
    if kind in (b"zTXt", b"iCCP"):
        packed = body[body.find(b"\0") + 2 :]
    elif kind == b"iTXt":
        at = body.find(b"\0")
        if body[at + 1 : at + 2] == b"\1":
            packed = body[body.find(b"\0", body.find(b"\0", at + 3) + 1) + 1 :]
    most = _LARGEST_PROFILE if kind == b"iCCP" else _LARGEST_TEXT
    if not packed:
        return "is too large" if kind != b"eXIf" and len(body) > most else ""
    try:
        unpacking = zlib.decompressobj()
        unpacking.decompress(packed, most + 1)
        if unpacking.unconsumed_tail:
            return "is too large"
        return "" if unpacking.eof else "is damaged"
    except zlib.error:
        return "is damaged"


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
