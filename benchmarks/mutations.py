r"""How much the tests notice: faults are put into the code, one at a time, and the tests are run.

    python benchmarks/mutations.py --count=300 --seed=0 --output=runs/mutations.jsonl

Each mutation changes one operator, comparison, constant, condition or result of a function in one
of ROOMS, in a copy of the package. The tests of its room are run until the first that fails, those
of the file's own name first. What no test notices, survives: it is a missing test, or changes
nothing (a bound of a type, a speed). A run that was stopped goes on. What was found and which tests
it led to stands in benchmarks/README.md.
"""

import argparse
import ast
import contextlib
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).parent.parent
# Rooms of the package, with the tests that are theirs
ROOMS = {
    "diffusion": ["tests/diffusion", "tests/test_method.py"],
    "objectives": ["tests/test_method.py", "tests/diffusion", "tests/training/test_step.py"],
    "tasks": ["tests/tasks", "tests/test_method.py"],
    "data": ["tests/data"],
    "images": ["tests/images"],
    "inference": ["tests/inference"],
    "metrics": ["tests/metrics"],
}
SECONDS = 900  # after which a mutation that hangs is noticed
PRELOADED = (
    "flax.linen",
    "grain.python",
    "imagecodecs",
    "optax",
    "orbax.checkpoint",
    "skimage.data",
)

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip


class Mutation(NamedTuple):
    """A change of one node of a file."""

    file: str  # below sr3_jax/
    node: int  # its number in ast.walk
    kind: str
    line: int
    text: str  # the changed line's new code, for people


def kinds(node: ast.AST) -> Iterator[str]:
    """How a node can be changed."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison"
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "operator"
    elif isinstance(node, ast.BoolOp):
        yield "and/or"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "sign"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield "constant"
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition"


def changed(node: ast.AST, kind: str) -> None:
    """Changes a node in place."""
    if kind == "comparison":
        node.ops[0] = COMPARISONS[type(node.ops[0])]()  # type: ignore[attr-defined]
    elif kind == "operator":
        node.op = OPERATORS[type(node.op)]()  # type: ignore[attr-defined]
    elif kind == "and/or":
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()  # type: ignore[attr-defined]
    elif kind == "sign" and isinstance(node.op, ast.USub):  # type: ignore[attr-defined]
        node.op = ast.UAdd()  # type: ignore[attr-defined]
    elif kind == "sign":
        node.operand = ast.UnaryOp(ast.Not(), node.operand)  # type: ignore[attr-defined]
    elif kind == "constant":
        value = node.value  # type: ignore[attr-defined]
        new = not value if isinstance(value, bool) else value + 1 if value < 1000 else value * 2
        node.value = new  # type: ignore[attr-defined]
    else:
        node.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]


def possible(file: Path) -> list[Mutation]:
    """All mutations of a file, but those in annotations and of texts."""
    tree = ast.parse(file.read_text())
    ignored: set[ast.AST] = set()
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if (part := getattr(node, name, None)) is not None:
                ignored.update(ast.walk(part))
        if isinstance(node, ast.Raise):  # what a message says is the business of other tests
            ignored.update(ast.walk(node))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            ignored.update(ast.walk(node))
    found = []
    for number, node in enumerate(ast.walk(tree)):
        if node in ignored:
            continue
        for kind in kinds(node):
            new = mutated(file.read_text(), number, kind)
            line = getattr(node, "lineno", 0)
            before = ast.unparse(node)[:80].splitlines()[0]
            name = str(file.relative_to(ROOT / "sr3_jax"))
            if new:
                found.append(Mutation(name, number, kind, line, before))
    return found


def mutated(source: str, number: int, kind: str) -> str:
    """The source with one node changed; empty if that cannot be."""
    tree = ast.parse(source)
    node = next(node for i, node in enumerate(ast.walk(tree)) if i == number)
    before = ast.unparse(copy.deepcopy(tree))
    changed(node, kind)
    after = ast.unparse(ast.fix_missing_locations(tree))
    return after if after != before else ""


def tests_for(mutation: Mutation) -> list[str]:
    """The tests of a mutation's room, those of the file's name first."""
    room = mutation.file.split("/")[0]
    own = ROOT / ROOMS[room][0] / f"test_{Path(mutation.file).stem}.py"
    first = [str(own.relative_to(ROOT))] if own.exists() else []
    return first + ROOMS[room]


def tried(mutation: Mutation, folder: Path) -> str:
    """The test that notices a mutation, or "" if none does."""
    target = folder / "sr3_jax" / mutation.file
    original = target.read_text()
    target.write_text(mutated(original, mutation.node, mutation.kind))
    log = folder / "log"
    try:
        pid = os.fork()
        if not pid:
            run_tests(mutation, folder, log)
        return told(pid, log)
    finally:
        target.write_text(original)


def run_tests(mutation: Mutation, folder: Path, log: Path) -> NoReturn:
    """Runs a mutation's tests in this process, a fork, and ends it."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    signal.alarm(SECONDS)
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    options += [f"--basetemp={folder / 'pytest'}", *tests_for(mutation)]
    code = pytest.main(options)
    sys.stdout.flush()
    os._exit(code)


def told(pid: int, log: Path) -> str:
    """What the tests of a process told: the first that failed, or ""."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):  # what it has started
        os.killpg(pid, signal.SIGKILL)
    if code == 0:
        return ""
    if code == -signal.SIGALRM:
        return "it hangs"
    lines = log.read_text(errors="replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition(" - ")[0].split(" ", 1)[1] if failed else f"exit {code}"


def preload(folder: Path) -> None:
    """Imports what takes long, as the tests' conftest.py would; no device is touched."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TMPDIR": str(folder / "tmp"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    (folder / "tmp").mkdir()
    for name in PRELOADED:
        import_module(name)


def main() -> None:
    """Tries mutations, and counts those that survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", action="append", choices=list(ROOMS), default=[])
    parser.add_argument("--again", action="store_true", help="try those that survived, once more")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "mutations.jsonl")
    args = parser.parse_args()
    drawn = random.Random(args.seed)
    wanted: list[Mutation] = []
    rooms = args.room or list(ROOMS)
    for room in rooms:
        files = sorted((ROOT / "sr3_jax" / room).rglob("*.py"))
        every = [mutation for file in files for mutation in possible(file)]
        wanted += drawn.sample(every, min(len(every), -(-args.count // len(rooms))))
    drawn.shuffle(wanted)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    lines = args.output.read_text().splitlines() if args.output.exists() else []
    known = {tuple(each["mutation"]): each["by"] for each in map(json.loads, lines)}
    if args.again:
        wanted = [Mutation(*key) for key, by in known.items() if not by]
    with tempfile.TemporaryDirectory(prefix="sr3-mutations-") as place:
        folder = Path(place)
        for name in ("sr3_jax", "tests", "configs", "docs", "launch", "benchmarks"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("pyproject.toml", "setup.py", "README.md", "CHANGELOG.md"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, folder / name)
        preload(folder)
        for i, mutation in enumerate(wanted):
            if not args.again and tuple(mutation) in known:
                continue
            by = tried(mutation, folder)
            known[tuple(mutation)] = by
            with args.output.open("a") as file:
                file.write(json.dumps({"mutation": mutation, "by": by}) + "\n")
            where = f"{mutation.file}:{mutation.line} {mutation.kind} {mutation.text}"
            print(f"{i + 1}/{len(wanted)} {where}: {by or 'SURVIVES'}", flush=True)
    survived = sum(not by for by in known.values())
    print(f"{len(known)} mutations, {len(known) - survived} noticed, {survived} survive")


if __name__ == "__main__":
    main()
