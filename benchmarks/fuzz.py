r"""Damaged files for the readers: each is read, or refused in one sentence.

    python benchmarks/fuzz.py --seconds=3600

Real files are damaged where it matters: entries of EXIF and of TIFF directories, colour profiles,
chunks of PNG (with right checksums), segments of JPEG, headers of safetensors. Whatever is read is
written again in several formats, with all that it held. A fault is an error that is no sentence, a
crash, a case of more than CASE seconds, or a picture that could be read and not be written. The
first file of each new outcome is kept in tests/images/corpus or tests/checkpoints/corpus, which the
tests read. What was found stands in benchmarks/README.md.
"""

import argparse
import hashlib
import io
import json
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from sr3_jax.checkpoints.exported import load_export
from sr3_jax.errors import UserError
from sr3_jax.images import files, png
from sr3_jax.images.formats import FORMATS, check_size
from sr3_jax.images.pixels import Picture

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
CORPUS = {kind: ROOT / "tests" / kind / "corpus" for kind in ("images", "checkpoints")}
BATCH, CASE = 60, 20  # cases of a process; seconds of a case
MEMORY = 6 * 2**30  # of a process: the machine's would be lost by a crash
# Bytes of a file of the corpora, and how many there are of a kind
LARGEST, MOST = {"images": 2000, "checkpoints": 16_000}, 12
WRITTEN = ("PNG", "JPEG", "TIFF", "WEBP")
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)

Make = Callable[[np.random.Generator], bytes]


def entry(rng: np.random.Generator, data: bytes, start: int) -> bytes:
    """A TIFF structure with some numbers of a directory changed: tag, type, count, value, link."""
    changed = bytearray(data)
    order = "<" if data[start : start + 2] == b"II" else ">"
    for _ in range(rng.integers(1, 4)):
        at = start + struct.unpack_from(order + "I", data, start + 4)[0]
        count = struct.unpack_from(order + "H", data, at)[0]
        place = at + 2 + 12 * int(rng.integers(max(count, 1)))
        field = int(rng.integers(5))
        number = int(rng.choice(NUMBERS))
        try:
            if field == 0:
                struct.pack_into(order + "H", changed, place, number & 0xFFFF)
            elif field == 1:
                struct.pack_into(order + "H", changed, place + 2, int(rng.integers(20)))
            elif field == 2:
                struct.pack_into(order + "I", changed, place + 4, number)
            elif field == 3:
                struct.pack_into(order + "I", changed, place + 8, number)
            else:
                struct.pack_into(order + "I", changed, at + 2 + 12 * count, number)
        except struct.error:
            continue
    return bytes(changed)


def scattered(rng: np.random.Generator, data: bytes) -> bytes:
    """A few bytes changed, cut out or doubled, or the end missing."""
    from tests.inference.test_fuzz import mutated

    return mutated(data, rng)


def some_exif() -> bytes:
    """EXIF with entries of many types, and inner directories."""
    exif = Image.Exif()
    exif[274], exif[271], exif[282], exif[36867 - 1] = 6, "maker", 72.0, "2026:01:01 00:00:00"
    exif[33432], exif[40092] = "who", b"c\0o\0m\0"
    exif[34665] = {33434: 0.01, 37510: b"ASCII\0\0\0words", 40962: 24, 37500: b"note" * 5}
    exif[34853] = {1: "N", 2: (1.0, 2.0, 3.0), 29: "2026:01:01"}
    return exif.tobytes()


def profile(rng: np.random.Generator) -> bytes:
    """A colour profile with some of its bytes changed, its header and table of tags above all."""
    name = ("sRGB", "LAB", "XYZ")[int(rng.integers(3))]
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes())
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(min(len(data), 260)))
        data[at] = int(rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF)))
    if rng.random() < 0.2:
        data[16:20] = (b"GRAY", b"CMYK", b"Lab ", b"ABCD")[int(rng.integers(4))]
    return bytes(data)


def small(mode: str) -> Image.Image:
    return Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)).convert(mode)


def saved(form: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    small(mode).save(buffer, form, **options)
    return buffer.getvalue()


def exif_in(rng: np.random.Generator) -> bytes:
    """A file whose EXIF is damaged."""
    exif = some_exif()
    damaged = entry(rng, exif, 6) if rng.random() < 0.7 else b"Exif\0\0" + scattered(rng, exif[6:])
    return saved(str(rng.choice(["JPEG", "PNG", "WEBP"])), exif=damaged[:60_000])


def profile_in(rng: np.random.Generator) -> bytes:
    """A file whose colour profile is damaged."""
    form = str(rng.choice(["JPEG", "PNG", "WEBP", "TIFF"]))
    mode = "CMYK" if form in ("JPEG", "TIFF") and rng.random() < 0.3 else "RGB"
    return saved(form, mode, icc_profile=profile(rng))


def tiff_in(rng: np.random.Generator) -> bytes:
    """A TIFF file whose directory is damaged."""
    mode = str(rng.choice(["RGB", "L", "CMYK", "P", "1", "I;16", "F"]))
    compression = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"]))
    if compression == "jpeg" and mode not in ("RGB", "L"):
        compression = "raw"
    image = small("L").convert(mode) if mode in ("I;16", "F") else small(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression, dpi=(72, 72))
    return entry(rng, buffer.getvalue(), 0)


def chunk_in(rng: np.random.Generator) -> bytes:
    """A PNG file with a damaged chunk, or one more, whose checksum is right."""
    mode = str(rng.choice(["RGB", "RGBA", "L", "LA", "P", "1"]))
    data = saved("PNG", mode)
    names = [b"IHDR", b"gAMA", b"cHRM", b"tRNS", b"PLTE", b"pHYs", b"iCCP", b"sRGB", b"eXIf"]
    names += [b"tEXt", b"iTXt", b"zTXt", b"bKGD", b"sBIT", b"acTL", b"fcTL", b"cICP"]
    name = names[int(rng.integers(len(names)))]
    if name == b"IHDR":
        whole = bytearray(data)
        whole[16 + int(rng.integers(13))] = int(rng.choice((0, 1, 3, 8, 16, 255)))
        whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
        return bytes(whole)
    body = rng.integers(0, 256, int(rng.choice((0, 1, 4, 9, 13, 32))), np.uint8).tobytes()
    if rng.random() < 0.5:
        body = b"key\0\0" + body
    return png.with_chunks(data, png.chunk(name, body))


def segment_in(rng: np.random.Generator) -> bytes:
    """A JPEG file with a damaged segment."""
    data = saved("JPEG", str(rng.choice(["RGB", "L", "CMYK"])), comment=b"words", dpi=(72, 72))
    end = data.index(b"\xff\xda") + 12
    return scattered(rng, data[:end]) + data[end:]


def any_in(rng: np.random.Generator) -> bytes:
    """A file of any format with some bytes changed."""
    forms = ["GIF", "BMP", "WEBP", "PPM", "JPEG2000", "AVIF", "TIFF", "PNG"]
    form = forms[int(rng.integers(len(forms)))]
    if rng.random() < 0.2:
        deep = Picture(np.zeros((9, 7, 3), np.float32), None, 65535)
        return scattered(rng, files.encode(deep, FORMATS[str(rng.choice(["PNG", "TIFF"]))])[0])
    return scattered(rng, saved(form, "P" if form == "GIF" else "RGB"))


def weights() -> bytes:
    """A small export, made by another process: JAX must not run in one that forks."""
    from sr3_jax.checkpoints.exported import export
    from tests import tiny

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        if not (pid := os.fork()):
            export(tiny.tiny_checkpoint(), path, dtype="int8")
            os._exit(0)
        os.waitpid(pid, 0)
        return path.read_bytes()


def header_in(data: bytes) -> Make:
    """Exports whose header is damaged."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    junk = (None, -1, 0, 1, 2**63, 1e300, "", "F32", "abc", [], {}, [1, 2], [-1], True)

    def make(rng: np.random.Generator) -> bytes:
        changed = json.loads(json.dumps(header))
        for _ in range(rng.integers(1, 4)):
            names = list(changed) if isinstance(changed, dict) else []
            if not names:
                break
            name = names[int(rng.integers(len(names)))]
            if rng.random() < 0.4:
                name = "__metadata__"
            inside = changed.get(name)
            value = junk[int(rng.integers(len(junk)))]
            if isinstance(inside, dict) and inside and rng.random() < 0.85:
                key = list(inside)[int(rng.integers(len(inside)))]
                if key == "config" and rng.random() < 0.8:
                    inside[key] = config_with(rng, inside[key], value)
                elif isinstance(inside[key], list) and inside[key] and rng.random() < 0.6:
                    inside[key][int(rng.integers(len(inside[key])))] = value
                else:
                    inside[key] = value if rng.random() < 0.5 else json.dumps(value)
            elif rng.random() < 0.3:
                changed.pop(name, None)
            else:
                changed[name] = value
        text = json.dumps(changed).encode()
        if rng.random() < 0.15:
            text = scattered(rng, text)
        size = len(text) if rng.random() < 0.9 else int(rng.choice(NUMBERS))
        rest = body if rng.random() < 0.9 else body[: int(rng.integers(len(body)))]
        return size.to_bytes(8, "little") + text + rest

    return make


def config_with(rng: np.random.Generator, text: Any, value: Any) -> str:
    """A config's JSON with another value of one field."""
    try:
        config = json.loads(text)
    except (TypeError, ValueError):
        return json.dumps(value)
    if not isinstance(config, dict):
        return json.dumps(value)
    groups = [name for name in config if isinstance(config[name], dict)]
    group = config[groups[int(rng.integers(len(groups)))]] if groups else config
    if group:
        group[list(group)[int(rng.integers(len(group)))]] = value
    return json.dumps(config)


def outcome_of_image(data: bytes) -> str:
    """What becomes of an image: the words of its notes or of the refusal; raises on a fault."""
    try:
        height, width = files.header(data, "photo")
        if height * width > 10**6:  # as the command, which refuses by the memory it would take
            return "too large"
        found = files.parse(data, "photo")
    except UserError as refusal:
        return sentence(refusal)
    if not np.isfinite(found.picture.colour).all():
        raise AssertionError("a value is not finite")
    said = list(found.notes)
    for form in map(FORMATS.__getitem__, WRITTEN):
        try:
            check_size(form, *found.picture.colour.shape[:2], "photo")
        except UserError:
            continue
        _, notes = files.encode(found.picture, form, found.metadata)
        said += notes if form.name == "PNG" else []
    return "read" + "".join(f"; {note}" for note in said)


def outcome_of_weights(data: bytes) -> str:
    """What becomes of an export; raises on a fault."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.safetensors"
        path.write_bytes(data)
        try:
            load_export(path, "photo")
        except UserError as refusal:
            return sentence(refusal)
    return "read"


def sentence(refusal: UserError) -> str:
    text = str(refusal)
    if "\n" in text or "photo" not in text:
        raise AssertionError(f"no sentence that names the file: {text!r}")
    return f"refused: {text}"


def kinds() -> dict[str, tuple[str, Make, Callable[[bytes], str]]]:
    """By name: whose corpus, how a case is made, and what becomes of it."""
    makers: dict[str, Make] = {
        "exif": exif_in,
        "profile": profile_in,
        "tiff": tiff_in,
        "chunk": chunk_in,
        "segment": segment_in,
        "any": any_in,
    }
    found = {name: ("images", make, outcome_of_image) for name, make in makers.items()}
    return found | {"header": ("checkpoints", header_in(weights()), outcome_of_weights)}


def batch(name: str, seed: int, file: Path) -> None:
    """Tries some cases in this process, and writes a line before and after each."""
    _, make, outcome = kinds_known[name]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rng = np.random.default_rng([seed, *name.encode()])
    with file.open("a") as log:
        for _ in range(BATCH):
            try:
                data = make(rng)
            except Exception:  # a library that refuses to write such a thing
                continue
            log.write(json.dumps({"data": data.hex()}) + "\n")
            log.flush()
            signal.alarm(CASE)
            try:
                result = {"outcome": outcome(data)}
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                result = {"fault": f"{type(error).__name__} at {place}: {error}"[:300]}
            signal.alarm(0)
            log.write(json.dumps(result) + "\n")
            log.flush()


kinds_known: dict[str, tuple[str, Make, Callable[[bytes], str]]] = {}


def tried(name: str, seed: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """The cases of a batch, in a process of its own, with what became of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log"
        pid = os.fork()
        if not pid:
            for stream in (1, 2):  # libraries that warn
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            batch(name, seed, file)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    for given, result in zip(lines[::2], lines[1::2], strict=False):
        yield bytes.fromhex(given["data"]), result
    if len(lines) % 2:
        yield bytes.fromhex(lines[-1]["data"]), {"fault": f"the process ended with {code}"}


def signature(name: str, outcome: str) -> str:
    """An outcome without its numbers and quotations."""
    return name + " " + re.sub(r"'[^']*'|\d+|0x\w+|[^\x00-\x7f]", "#", outcome)[:160]


def main() -> None:
    """Tries cases until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--keep", action="store_true", help="add to the corpora of the tests")
    args = parser.parse_args()
    kinds_known.update(kinds())
    outcomes: Counter[str] = Counter()
    faults: dict[str, str] = {}
    until, seed = time.monotonic() + args.seconds, args.seed
    while time.monotonic() < until:
        for name in args.only or kinds_known:
            folder, most = CORPUS[kinds_known[name][0]], LARGEST[kinds_known[name][0]]
            for data, result in tried(name, seed):
                if "fault" in result:
                    short = signature(name, result["fault"])
                    if short not in faults:
                        digest = hashlib.sha256(data).hexdigest()[:10]
                        kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{digest}"
                        kept.write_bytes(data)
                        faults[short] = result["fault"]
                        print(f"FAULT {name} {result['fault']} ({kept})", flush=True)
                    outcomes["faults"] += 1
                    continue
                short = signature(name, result["outcome"])
                outcomes[short] += 1
                wanted = outcomes[short] == 1 and len(data) <= most
                if args.keep and wanted and len([*folder.glob(f"{name}-*")]) < MOST:
                    folder.mkdir(parents=True, exist_ok=True)
                    digest = hashlib.sha256(data).hexdigest()[:10]
                    (folder / f"{name}-{digest}").write_bytes(data)
        seed += 1
    total = sum(outcomes.values())
    print(f"{total} cases, {len(outcomes)} kinds of outcome, {outcomes['faults']} faults")
    for short, count in outcomes.most_common(40):
        print(f"{count:8} {short}")


if __name__ == "__main__":
    main()
