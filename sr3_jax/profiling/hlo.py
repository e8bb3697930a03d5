"""Reads a compiled program: the text of optimised HLO, as `jax.stages.Compiled.as_text()` gives it for a TPU.

The TPU compiler writes `estimated_cycles` beside each instruction that it schedules. An instruction
counts as often as it runs: bodies of loops by their trip count, fused computations through the
fusion alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
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
# Names for memory that is already there, or for what another computation does: nothing is read or
# written.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "partition-id",
    "after-all", "async-start", "async-update",
}  # fmt: skip
# What marks the parts of one collective that the TPU compiler runs during several fusions.
_IN_PARTS = '"async_collective_fusion_config"'

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\((.*)$")
_ON_CHIP = re.compile(r"S\([1-9]\)")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?")


class Instruction(NamedTuple):
    name: str
    opcode: str
    shape: str  # with layout and memory space
    operands: tuple[str, ...]
    rest: str  # attributes, metadata, backend config


@dataclass(frozen=True)
class Program:
    """The computations of a program, and how often each runs: on its own, not counting through fusions."""

    computations: dict[str, list[Instruction]]
    runs: dict[str, int]
    # The same for computations that are inlined into an instruction: fusions, reducers
    inside: dict[str, int]

    @classmethod
    def parse(cls, text: str, trips: int = 1) -> "Program":
        """`trips` is for loops whose trip count the compiler does not state."""
        computations: dict[str, list[Instruction]] = {}
        entry, current = "", []
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
            elif found := _INSTRUCTION.match(line):
                name, shape, opcode, rest = found.groups()
                operands = tuple(re.findall(r"%([\w.\-]+)", rest.partition(")")[0]))
                current.append(Instruction(name, opcode, shape, operands, rest))
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
        """Every instruction that the program runs as such, and how often."""
        for name, times in self.runs.items():
            for instruction in self.computations[name]:
                yield instruction, times

    @property
    def cycles(self) -> int:
        """The compiler's estimate, for one run of the program on one chip, of everything but collectives."""
        return sum(cycles(instruction) * times for instruction, times in self.scheduled())

    @property
    def hbm_bytes(self) -> int:
        """What all instructions read and write, as laid out and padded, in HBM rather than in on-chip memory.

        Each reads its operands, a slice only its part of them, and writes its result; of an
        asynchronous instruction all that is the start's.
        """
        total = 0
        for name, times in self.runs.items():
            shapes = {
                instruction.name: instruction.shape for instruction in self.computations[name]
            }
            for instruction in self.computations[name]:
                operands = [shapes.get(operand, "") for operand in instruction.operands]
                total += times * self._traffic(instruction, operands)
        return total

    def _traffic(self, instruction: Instruction, operands: list[str]) -> int:
        opcode, written = instruction.opcode, result(instruction)
        if opcode in FREE or opcode.endswith("-done"):
            return 0
        if opcode.removesuffix("-start") in ("slice", "dynamic-slice"):
            read = padded_bytes(written) if hbm_bytes(operands[0]) else 0
            return read + hbm_bytes(written)
        parts = [
            part
            for name, _, _ in _callees(instruction, 1)
            for part in self.computations.get(name, ())
        ]
        if any(_IN_PARTS in part.rest for part in parts):
            # The collective's own buffers pass through all of its parts; the start reads the one
            # and writes the other.
            started, done = (
                any(f"AsyncCollective{end}" in part.rest for part in parts)
                for end in ("Start", "Done")
            )
            if done:
                return 0
            passed = [
                (int(out or 0), int(into))
                for out, into in re.findall(r"\{(\d*)\}: \((\d+),", instruction.rest)
            ]
            results = elements(written)
            written = "".join(
                results[i] for i in set(range(len(results))) - {out for out, _ in passed}
            )
            if not started:
                operands = [
                    operands[i] for i in set(range(len(operands))) - {into for _, into in passed}
                ]
        return hbm_bytes(written) + sum(map(hbm_bytes, operands))

    @property
    def collective_bytes(self) -> dict[str, int]:
        """Bytes that collectives handle, by kind, wherever they sit: of each the larger of what goes in and what comes out."""
        totals: Counter[str] = Counter()
        seen = set()
        for counter in (self.runs, self.inside):
            for name, times in counter.items():
                shapes = {
                    instruction.name: instruction.shape
                    for instruction in self.computations.get(name, ())
                }
                for instruction in self.computations.get(name, ()):
                    kind = instruction.opcode.removesuffix("-start")
                    channel = re.search(r"channel_id=(\d+)", instruction.rest)
                    # One that runs in parts stands in each of them. Else a channel says little:
                    # several may share one.
                    identity = (
                        channel[0]
                        if channel and _IN_PARTS in instruction.rest
                        else instruction.name
                    )
                    if kind not in COLLECTIVES or identity in seen:
                        continue
                    seen.add(identity)
                    # a fusion in which each chip keeps a slice of the sum
                    if name.startswith("all-reduce-scatter"):
                        kind = "reduce-scatter"
                    into = sum(
                        logical_bytes(shapes.get(operand, "")) for operand in instruction.operands
                    )
                    totals[kind] += times * max(into, logical_bytes(result(instruction)))
        return dict(totals)

    def by_operation(self) -> list[tuple[str, int]]:
        """Estimated cycles by the operation's name in our source, the most expensive first."""
        totals: defaultdict[str, int] = defaultdict(int)
        for instruction, times in self.scheduled():
            totals[self.source(instruction) or instruction.opcode] += cycles(instruction) * times
        return sorted(
            ((name, total) for name, total in totals.items() if total), key=lambda pair: -pair[1]
        )

    def heaviest(self, instruction: Instruction) -> Instruction:
        """The part of a fusion that costs most: a convolution, a matrix product or a reduction, else the last; or itself."""
        inner = [
            part
            for name, _, _ in _callees(instruction, 1)
            for part in self.computations.get(name, ())
        ]
        if instruction.opcode != "fusion" or not inner:
            return instruction
        heavy = ("convolution", "dot", "reduce")
        return min(
            reversed(inner),
            key=lambda part: heavy.index(part.opcode) if part.opcode in heavy else len(heavy),
        )

    def source(self, instruction: Instruction) -> str:
        """The operation's name in our source, of a fusion without one that of its heaviest part; "" if there is none."""
        for named in (instruction, self.heaviest(instruction)):
            if found := re.search(r'op_name="([^"]*)"', named.rest):
                return found[1]
        return ""


def _callees(instruction: Instruction, unknown: int) -> Iterator[tuple[str, int, bool]]:
    """The computations that an instruction runs: name, how often, whether they are part of the instruction itself."""
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
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    return int(found[1]) if found else 0


def elements(shape: str) -> list[str]:
    """The elements of a tuple's shape, themselves perhaps tuples; of another shape itself."""
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
    """The shape of what an instruction makes: of a started one, whose shape also holds its operands, without them."""
    if not instruction.opcode.endswith("-start") or instruction.opcode == "all-reduce-start":
        return instruction.shape
    return elements(instruction.shape)[0 if instruction.opcode == "copy-start" else 1]


def logical_bytes(shape: str) -> int:
    """The bytes of a shape, or of all in a tuple."""
    return sum(
        BYTES.get(kind, 4) * prod(map(int, filter(None, sizes.split(","))))
        for kind, sizes, _ in _ARRAY.findall(shape)
    )


def hbm_bytes(shape: str) -> int:
    """The bytes that a shape, or all in a tuple, takes in HBM: with the padding of its tiles, 0 if it lives on the chip."""
    return sum(
        padded_bytes(array[0])
        for array in _ARRAY.finditer(shape)
        if not _ON_CHIP.search(array[3] or "")
    )


def padded_bytes(shape: str) -> int:
    """The same, wherever it lives."""
    total = 0
    for kind, sizes, layout in _ARRAY.findall(shape):
        dimensions = [int(size) for size in sizes.split(",") if size]
        order, _, tiling = layout.partition(":")
        tile = re.search(r"T\(([\d,]+)\)", tiling)
        if tile and order:
            minor = [int(index) for index in order.split(",")]
            for index, multiple in zip(
                minor, reversed([int(size) for size in tile[1].split(",")]), strict=False
            ):
                dimensions[index] = -(-dimensions[index] // multiple) * multiple
        total += BYTES.get(kind, 4) * prod(dimensions)
    return total
