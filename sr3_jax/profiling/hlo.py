"""Reads a compiled program, to estimate what it costs.

The program is the text of optimised HLO, as `jax.stages.Compiled.as_text()` gives it for a TPU. It
consists of computations (functions), which are lists of instructions. The TPU compiler writes
`estimated_cycles` beside each instruction that it schedules. An instruction counts as often as it
runs: that of a loop's body as often as the loop turns. Instructions that were fused into one count
through that one alone.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import NamedTuple

BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that read and write nothing themselves: they name memory that is already there, or
# stand for what another computation does.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "partition-id", "after-all", "async-start", "async-update",
}  # fmt: skip
# What marks the parts of one collective that the TPU compiler runs during several fusions
_IN_PARTS = '"async_collective_fusion_config"'

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\((.*)$")
# In the layout of an array: a memory space other than HBM
_ON_CHIP = re.compile(r"S\([1-9]\)")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?")


class Instruction(NamedTuple):
    """One instruction of a computation, its text taken apart."""

    name: str
    opcode: str
    shape: str  # with layout and memory space
    operands: list[str]  # the shapes of what it takes; "": not known
    rest: str  # operands, attributes, metadata, backend config


@dataclass(frozen=True)
class Program:
    """The computations of a program, and how often each runs."""

    computations: dict[str, list[Instruction]]
    # How often each runs on its own
    runs: dict[str, int]
    # How often each runs as a part of an instruction, such as a fusion or a reduction
    inside: dict[str, int]

    @classmethod
    def parse(cls, text: str, trips: int = 1) -> "Program":
        """Reads the text of a program.

        Args:
          text: Optimised HLO.
          trips: How often a loop turns if the compiler does not state it.
        """
        computations: dict[str, list[Instruction]] = {}
        entry, current = "", []
        shapes: dict[str, str] = {}  # of the computation's instructions so far: operands come first
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = computations.setdefault(header[2], [])
                shapes = {}
                entry = header[2] if header[1] else entry
            elif found := _INSTRUCTION.match(line):
                name, shape, opcode, rest = found.groups()
                taken = re.findall(r"%([\w.\-]+)", rest.partition(")")[0])
                operands = [shapes.get(operand, "") for operand in taken]
                current.append(Instruction(name, opcode, shape, operands, rest))
                shapes[name] = shape
        runs: Counter[str] = Counter()
        inside: Counter[str] = Counter()

        def visit(name: str, times: int, counter: Counter[str]) -> None:
            counter[name] += times
            for instruction in computations.get(name, ()):
                for callee, count, inlined in _callees(instruction, trips):
                    visit(callee, times * count, inside if inlined else counter)

        visit(entry, 1, runs)
        return cls(computations, dict(runs), dict(inside))

    def scheduled(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that is not a part of another one, and how often it runs."""
        return (
            (instruction, times)
            for name, times in self.runs.items()
            for instruction in self.computations[name]
        )

    @property
    def cycles(self) -> int:
        """The cycles that the compiler estimates for one run of the program on one chip.

        Collectives are not among them.
        """
        return sum(cycles(instruction) * times for instruction, times in self.scheduled())

    @property
    def hbm_bytes(self) -> int:
        """The bytes that all instructions read from and write to HBM, as laid out and padded.

        Arrays in on-chip memory do not count. Each instruction reads its operands (a slice only its
        part of them) and writes its result. For an asynchronous instruction, which consists of a
        start and a done, all this is counted at its start.
        """
        return sum(self._traffic(instruction) * times for instruction, times in self.scheduled())

    def _parts(self, instruction: Instruction) -> list[Instruction]:
        return [
            part
            for name, _, _ in _callees(instruction, 1)
            for part in self.computations.get(name, ())
        ]

    def _traffic(self, instruction: Instruction) -> int:
        """The bytes that one run of an instruction moves."""
        opcode = instruction.opcode
        operands = instruction.operands
        written = result(instruction)
        if opcode in FREE or opcode.endswith("-done"):
            return 0
        if opcode.removesuffix("-start") in ("slice", "dynamic-slice"):
            read = padded_bytes(written) if hbm_bytes(operands[0]) else 0
            return read + hbm_bytes(written)
        parts = self._parts(instruction)
        if any(_IN_PARTS in part.rest for part in parts):
            # A collective that runs during several fusions: its own buffers pass through all of
            # them. Reading the one and writing the other is counted at its start.
            started, done = (
                any(f"AsyncCollective{end}" in part.rest for part in parts)
                for end in ("Start", "Done")
            )
            if done:
                return 0
            passed = {
                int(out or 0): int(into)
                for out, into in re.findall(r"\{(\d*)\}: \((\d+),", instruction.rest)
            }
            written = "".join(shape for i, shape in enumerate(elements(written)) if i not in passed)
            if not started:
                operands = [shape for i, shape in enumerate(operands) if i not in passed.values()]
        return hbm_bytes(written) + sum(map(hbm_bytes, operands))

    @property
    def collective_bytes(self) -> dict[str, int]:
        """The bytes that collectives handle, by their kind, also inside fusions.

        Of each collective it is the larger of what goes in and what comes out.
        """
        totals: Counter[str] = Counter()
        seen = set()
        for name, times in chain(self.runs.items(), self.inside.items()):
            for instruction in self.computations.get(name, ()):
                kind = instruction.opcode.removesuffix("-start")
                channel = re.search(r"channel_id=(\d+)", instruction.rest)
                # One that runs in parts stands in each of them, always with the same channel.
                # Otherwise a channel does not tell collectives apart: several may share one.
                identity = (
                    channel[0] if channel and _IN_PARTS in instruction.rest else instruction.name
                )
                if kind not in COLLECTIVES or identity in seen:
                    continue
                seen.add(identity)
                into = sum(map(logical_bytes, instruction.operands))
                # A fusion in which each chip keeps only a slice of the sum
                scattered = name.startswith("all-reduce-scatter")
                totals["reduce-scatter" if scattered else kind] += times * max(
                    into, logical_bytes(result(instruction))
                )
        return dict(totals)

    def by_operation(self) -> list[tuple[str, int]]:
        """Estimated cycles by an operation's name in our source, the most expensive first."""
        totals: Counter[str] = Counter()
        for instruction, times in self.scheduled():
            totals[self.source(instruction) or instruction.opcode] += cycles(instruction) * times
        return [(name, total) for name, total in totals.most_common() if total]

    def heaviest(self, instruction: Instruction) -> Instruction:
        """The part of a fusion that costs most; of another instruction, itself.

        It is a convolution, else a matrix product, else a reduction, else the last part.
        """
        inner = self._parts(instruction) if instruction.opcode == "fusion" else []
        heavy = ("convolution", "dot", "reduce")
        return min(
            reversed(inner),
            key=lambda part: heavy.index(part.opcode) if part.opcode in heavy else len(heavy),
            default=instruction,
        )

    def source(self, instruction: Instruction) -> str:
        """The operation's name in our source, or "" if there is none.

        For a fusion without a name it is that of its heaviest part.
        """
        for named in (instruction, self.heaviest(instruction)):
            if found := re.search(r'op_name="([^"]*)"', named.rest):
                return found[1]
        return ""


def _callees(instruction: Instruction, unknown: int) -> Iterator[tuple[str, int, bool]]:
    """The computations that an instruction runs.

    For each: its name, how often it runs, and whether it is a part of the instruction itself.
    `unknown` is how often a loop turns if the compiler does not state it.
    """
    rest = instruction.rest
    if instruction.opcode in ("async-update", "async-done"):  # may name again what the start runs
        return
    if instruction.opcode == "while":
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
        for name in re.findall(r"(?:condition|body)=%?([\w.\-]+)", rest):
            yield name, int(known[1]) if known else unknown, False
    elif instruction.opcode == "conditional":
        branches = re.search(r"branch_computations=\{([^}]*)\}", rest)
        names = (
            re.findall(r"%?([\w.\-]+)", branches[1])
            if branches
            else re.findall(r"_computation=%?([\w.\-]+)", rest)
        )
        for name in names:  # all of them: an upper bound
            yield name, 1, False
    else:
        for name in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", rest):
            yield name, 1, instruction.opcode not in ("call", "async-start")


def cycles(instruction: Instruction) -> int:
    """The cycles that the compiler estimates for one run of an instruction; 0 if it has none."""
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    return int(found[1]) if found else 0


def elements(shape: str) -> list[str]:
    """The elements of a tuple's shape, which may be tuples too; of an array's shape, itself."""
    if not shape.startswith("("):
        return [shape]
    found, depth = [""], 0
    for character in shape[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [re.sub(r"/\*.*?\*/", "", element).strip() for element in found]


def result(instruction: Instruction) -> str:
    """The shape of what an instruction makes.

    The start of an asynchronous instruction has a shape that also holds its operands; they are left
    out.
    """
    if not instruction.opcode.endswith("-start") or instruction.opcode == "all-reduce-start":
        return instruction.shape
    return elements(instruction.shape)[0 if instruction.opcode == "copy-start" else 1]


def logical_bytes(shape: str) -> int:
    """The bytes of an array of that shape, or of all arrays of a tuple, without padding."""
    return sum(
        BYTES.get(kind, 4) * prod(map(int, filter(None, sizes.split(","))))
        for kind, sizes, _ in _ARRAY.findall(shape)
    )


def hbm_bytes(shape: str) -> int:
    """The bytes that an array of that shape, or all arrays of a tuple, take in HBM.

    They include the padding of the layout's tiles. An array in on-chip memory takes none.
    """
    return sum(
        padded_bytes(array[0])
        for array in _ARRAY.finditer(shape)
        if not _ON_CHIP.search(array[3] or "")
    )


def padded_bytes(shape: str) -> int:
    """The bytes of a shape with the padding of the layout's tiles, in whatever memory it is."""
    total = 0
    for kind, sizes, layout in _ARRAY.findall(shape):
        dimensions = [int(size) for size in sizes.split(",") if size]
        order, _, tiling = layout.partition(":")
        tile = re.search(r"T\(([\d,]+)\)", tiling)
        if tile and order:
            multiples = reversed([int(size) for size in tile[1].split(",")])
            for index, multiple in zip(map(int, order.split(",")), multiples, strict=False):
                dimensions[index] = -(-dimensions[index] // multiple) * multiple
        total += BYTES.get(kind, 4) * prod(dimensions)
    return total
