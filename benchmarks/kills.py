r"""SIGKILL at random moments, a thousand times: nothing is lost, and nothing half written is left.

    python benchmarks/kills.py --kills=170 --output=runs/kills.json

Each command of COMMANDS is run once to its end: the reference. Then it is started again and again,
each time killed after a random part of the time that the reference took, until it ends by itself;
then it begins anew. After every kill, what has its final name must be what the reference has under
it, to the byte (of a training run: complete checkpoints, the last of which never goes back; of a
study: every answer whose receipt was confirmed), and where it ends by itself, all of it. What was
found stands in benchmarks/README.md.

Processes are forked from one that has imported everything and used none of it, so that a kill costs
a second or two.
"""

import argparse
import functools
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


class Command(NamedTuple):
    """A command whose output is `place`.

    `arguments` and `place` are made from a folder; `intact` compares the place, after a kill or at
    the end, with the reference's, and returns what is wrong, or "".
    """

    arguments: Callable[[Path], list[str]]
    intact: Callable[[Path, Path, bool], str]


def images(folder: Path, count: int, side: int, channels: int = 1) -> None:
    """Random images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3)[: 2 + (channels == 3)], np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def inputs(root: Path) -> None:
    """What the commands work on, made once, by processes of their own."""
    images(root / "photos", 24, 24, 3)
    images(root / "faces", 30, 8)
    images(root / "reference", 12, 16)
    images(root / "candidates", 12, 16)

    def networks() -> None:
        from sr3_jax.checkpoints.exported import export
        from tests import tiny
        from tests.inference.test_generator import base_config

        export(tiny.tiny_checkpoint(), root / "tiny.safetensors")
        export(tiny.random_checkpoint(base_config(), "base"), root / "base.safetensors")

    log = root / "networks.log"
    if ended(forked(networks, log)):
        sys.exit(log.read_text())


def forked(work: Callable[[], Any], log: Path) -> int:
    """The process that does some work; its output goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = int(work() or 0)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Waits for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    """SIGKILL to a process and what it has started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(pid, signal.SIGKILL)
    ended(pid)


def sr3(arguments: list[str]) -> int:
    from sr3_jax import cli

    return cli.main(arguments)


def same_files(place: Path, reference: Path, whole: bool) -> str:
    """Files with a final name are the reference's; at the end, all are there, and no others."""
    ours, theirs = (
        {str(path.relative_to(top)): path for path in top.rglob("*") if path.is_file()}
        for top in (place, reference)
    )
    for name, path in ours.items():
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if hidden or name in LOGS:
            continue
        if name not in theirs:
            return f"{name} is none of the reference's files"
        if path.suffix == ".json":
            json.loads(path.read_text())  # whole
        elif path.read_bytes() != theirs[name].read_bytes():
            return f"{name} is not what the reference has"
    lacking = [name for name in theirs if name not in ours and not name.startswith(".")]
    return f"{lacking[0]} is lacking" if whole and lacking else ""


LOGS = {"log.txt", "run.log"}  # what differs from run to run


def training(place: Path, reference: Path, whole: bool) -> str:
    """Complete checkpoints do not go back, and the last one is the reference's to the bit."""
    found = place.with_suffix(".state")

    def look() -> None:
        import jax

        from sr3_jax.checkpoints.workdir import complete_steps
        from tests.tiny import read_state

        steps = complete_steps(place) if place.exists() else []
        digest = hashlib.sha256()
        if steps:
            for leaf in jax.tree.leaves(read_state(place)):
                digest.update(np.asarray(leaf).tobytes())
        found.write_text(json.dumps([steps, digest.hexdigest()]))

    if not whole and SEEN["looks"] % 5:  # each takes seconds
        SEEN["looks"] += 1
        return ""
    SEEN["looks"] += 1
    log = place.with_suffix(".look")
    if ended(forked(look, log)):
        return f"the workdir cannot be read: {log.read_text()[-300:]}"
    steps, digest = json.loads(found.read_text())
    last = max(steps, default=0)
    before, SEEN["last"] = SEEN["last"], 0 if whole else last
    if last < before:
        return f"there was a checkpoint of step {before}, and now the last is of {last}"
    if place == reference:
        SEEN["digest"] = digest
    elif whole and not SEEN["digest"]:
        training(reference, reference, True)
    return "the last state is not the reference's" if whole and digest != SEEN["digest"] else ""


SEEN: dict[str, Any] = {"last": 0, "looks": 0, "digest": ""}


def results(place: Path, reference: Path, whole: bool) -> str:
    """results.json is whole, and in the end has the reference's numbers."""
    if (place / "results.json").exists() or whole:
        ours, theirs = (
            json.loads((top / "results.json").read_text()) for top in (place, reference)
        )
        for name in ("methods", "per_image", "intervals"):
            if ours[name] != theirs[name]:
                return f"{name} differs from the reference's"
    return ""


COMMANDS = {
    "train": Command(
        lambda top: [
            "train",
            f"--config={ROOT}/tests/tiny.py",
            f"--workdir={top}/out",
            "--config.train.steps=24",
            "--config.train.checkpoint_every=4",
            "--config.train.keep_checkpoints=3",
            "--config.train.evaluate_every=12",
        ],
        training,
    ),
    "prepare": Command(
        lambda top: [
            "prepare",
            f"{top.parent}/photos",
            "--size=16",
            "--workers=1",
            f"--output={top}/out",
        ],
        same_files,
    ),
    "upscale": Command(
        lambda top: [
            "upscale",
            f"{top.parent}/faces",
            f"--checkpoint={top.parent}/tiny.safetensors",
            "--skip-existing",
            f"--output={top}/out",
        ],
        same_files,
    ),
    "evaluate": Command(
        lambda top: [
            "evaluate",
            f"--checkpoint={top.parent}/tiny.safetensors",
            "--limit=60",
            "--samples=2",
            f"--output={top}/out",
        ],
        results,
    ),
    "generate": Command(
        lambda top: [
            "generate",
            f"--stage={top.parent}/base.safetensors",
            "--count=40",
            "--batch=4",
            f"--output={top}/out",
        ],
        same_files,
    ),
}


class Found(NamedTuple):
    """What was found of a command."""

    kills: int
    ends: int  # how often it came to its end, and was whole
    wrong: list[str]


def killed(name: str, root: Path, kills: int, drawn: random.Random) -> Found:
    """Kills a command so many times."""
    command = COMMANDS[name]

    def start(top: Path) -> int:
        top.mkdir(parents=True, exist_ok=True)
        return forked(lambda: sr3(command.arguments(top)), top / "log.txt")

    for again in ("first", "reference"):  # the first compiles
        reference = root / f"{name}-{again}"
        began = time.monotonic()
        if code := ended(start(reference)):
            text = (reference / "log.txt").read_text()[-1500:]
            return Found(0, 0, [f"the reference ended with exit code {code}: {text}"])
        seconds = time.monotonic() - began
    print(f"{name}: {seconds:.1f} s to its end", flush=True)
    SEEN.update(last=0, looks=0, digest="")
    count, ends, wrong = 0, 0, list[str]()
    top = root / f"{name}-0"
    while count < kills:
        pid = start(top)
        until, code = time.monotonic() + drawn.uniform(0, 1.1 * seconds), None
        while time.monotonic() < until and code is None:
            time.sleep(0.005)
            done, status = os.waitpid(pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if done else None
        if code is None:
            kill(pid)
            count += 1
        place = top / "out"
        if code:
            wrong.append(f"exit code {code}: {(top / 'log.txt').read_text()[-300:]}")
        try:
            fault = command.intact(place, reference / "out", code == 0) if place.exists() else ""
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            wrong.append(fault)
            print(f"{name}, kill {count}: {fault}", flush=True)
        if code is not None or fault:
            ends += code == 0
            top = root / f"{name}-{ends}-{len(wrong)}"
        if len(wrong) > 20:
            break
    return Found(count, ends, wrong)


def study(root: Path, kills: int, drawn: random.Random) -> Found:
    """Kills a study's server while its subjects answer; every confirmed answer must be there."""
    folder = root / "study"
    create = ["study", "create", f"--reference={root}/reference", f"--output={folder}"]
    create += [f"--candidates=ours={root}/candidates", "--task=2", "--trials=8"]
    create += ["--training=2", "--catch=2"]
    log = root / "study.log"
    if ended(forked(lambda: sr3(create), log)):
        return Found(0, 0, [log.read_text()[-1500:]])
    confirmed: set[tuple[int, int]] = set()
    count, ends, wrong = 0, 0, list[str]()
    while count < kills:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve = ["study", "serve", str(folder), f"--port={port}", "--subjects=400"]
        pid = forked(functools.partial(sr3, serve), log)
        until = time.monotonic() + drawn.uniform(0.3, 4)
        while time.monotonic() < until:
            try:
                confirmed |= set(answer_some(folder, port, until, drawn))
            except (OSError, http.client.HTTPException, IndexError):
                time.sleep(0.05)
        kill(pid)
        count += 1
        database = sqlite3.connect(folder / "answers.sqlite")
        there = set(database.execute("SELECT subject, number FROM answers").fetchall())
        database.close()
        if lost := confirmed - there:
            wrong.append(f"{len(lost)} confirmed answers are lost: {sorted(lost)[0]}")
        if len(there) > len(confirmed) + count:  # one a kill may be written and not confirmed
            wrong.append(f"{len(there)} answers of {len(confirmed)} that were confirmed")
    print(f"study: {len(confirmed)} answers confirmed", flush=True)
    return Found(count, ends, wrong)


def answer_some(folder: Path, port: int, until: float, drawn: random.Random) -> list:
    """A subject's answers that the server confirmed, until a time or an error."""
    links = (folder / "links.txt").read_text().split()
    tokens = [link.rpartition("/")[2] for link in links if "/s/" in link]
    subject = drawn.randrange(len(tokens))
    path = f"/s/{tokens[subject]}"
    got: list[tuple[int, int]] = []
    try:
        while time.monotonic() < until:
            state = json.loads(asked(port, "GET", f"{path}/state")[1])
            if state["stage"] == "done":
                break
            if state["stage"] == "consent":
                asked(port, "POST", f"{path}/agree")
                continue
            body = json.dumps({"left": drawn.random() < 0.5, "milliseconds": 500.0})
            if asked(port, "POST", f"{path}/{state['number']}", body)[0] == 200:
                got.append((subject, state["number"]))
    except (OSError, http.client.HTTPException, ValueError):
        pass
    return got


def asked(port: int, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        origin = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
        connection.request(method, path, body, origin)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def main() -> None:
    """Kills every command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=170, help="of each command")
    parser.add_argument("--only", action="append", default=[], choices=[*COMMANDS, "study"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "kills.json")
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(args.output.read_text()) if args.output.exists() else {}
    with tempfile.TemporaryDirectory(prefix="sr3-kills-") as place:
        root = Path(place)
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_NUM_CPU_DEVICES": "1",
        }
        preload()
        inputs(root)
        for name in args.only or [*COMMANDS, "study"]:
            drawn = random.Random(f"{name} {args.seed}")
            one = (
                study(root, args.kills, drawn)
                if name == "study"
                else killed(name, root, args.kills, drawn)
            )
            found[name] = one._asdict()
            args.output.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{name}: {one.kills} kills, {one.ends} ends, {len(one.wrong)} wrong", flush=True)
            for wrong in one.wrong[:5]:
                print(f"  {wrong}", flush=True)


def preload() -> None:
    """Imports what the commands use; no device is touched, so that a fork may use it."""
    import starlette.applications  # noqa: F401
    import uvicorn  # noqa: F401

    import sr3_jax.cli.evaluate
    import sr3_jax.cli.generate
    import sr3_jax.evaluation.runs
    import sr3_jax.inference.files
    import sr3_jax.inference.generated
    import sr3_jax.study.app
    import sr3_jax.training.run  # noqa: F401


if __name__ == "__main__":
    main()
