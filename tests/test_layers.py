"""Imports point one way (docs/architecture.md).

`import sr3_jax` brings neither TensorFlow nor torch.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sr3_jax"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# From the ground up; a room or module imports only those on floors below it, and on its own floor
# none but itself.
FLOORS = (
    {"errors"},
    {"runtime"},
    {"images"},
    {"diffusion", "models", "tasks"},
    {"config"},
    {"objectives"},
    {"method"},
    {"data"},
    {"checkpoints", "datasets"},
    {"training", "inference", "study", "metrics"},
    {"evaluation", "profiling"},
    {"serve"},
    {"cli"},
    {"__main__"},
)
LOOSE = {"errors", "config", "method", "__main__"}  # modules without a room
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}
# Of what stands on a floor below, some is all the same not for these rooms.
MAY_NOT_SEE = {
    "data": {"objectives", "method", "models", "diffusion", "metrics"},
    "tasks": {"images"},
    "models": {"images"},
    "diffusion": {"images", "runtime"},
    "checkpoints": {"metrics"},
    "study": {"training", "inference", "models", "diffusion"},
    "serve": {"evaluation", "training", "profiling", "models", "study", "metrics"},
    "training": {"models", "metrics"},
    "inference": {"metrics"},
    "evaluation": {"training", "models", "study"},
    "cli": {"models", "diffusion"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of the modules imported, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            start = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def of(path: Path) -> set[str]:
    package = name_of(path) if path.name == "__init__.py" else name_of(path.parent / "__init__.py")
    return set(imports(ast.parse(path.read_text()), package))


IMPORTS = {name_of(path): of(path) for path in SOURCES}
INSIDE = {
    module: {name.split(".")[1] for name in names if name.startswith("sr3_jax.")}
    for module, names in IMPORTS.items()
}
# The modules themselves: `from package import module` names one, `from module import name` another.
INTERNAL = {
    module: {
        next(found for found in (name, name.rpartition(".")[0]) if found in IMPORTS or found == "")
        for name in names
        if name.startswith("sr3_jax.")
    }
    for module, names in IMPORTS.items()
}
OUTSIDE = {
    module: {name.partition(".")[0] for name in names} - {"sr3_jax"}
    for module, names in IMPORTS.items()
}


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_parser_sees_relative_nested_and_aliased_imports():
    tree = ast.parse(
        "from . import b\nfrom ..x.y import z as q\ndef f():\n  import jax._src.core as core"
    )
    assert set(imports(tree, "p.sub")) == {"p.sub.b", "p.x.y.z", "jax._src.core"}
    assert len(IMPORTS) > 20


def test_everything_has_a_floor_and_few_modules_no_room():
    assert {room(module) for module in IMPORTS} - {"", "weights"} == set(FLOOR)
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == LOOSE


def test_no_module_imports_itself_in_a_circle():
    seen: dict[str, set[str]] = {}

    def below(module: str, path: tuple[str, ...] = ()) -> set[str]:
        assert module not in path, f"a circle: {' → '.join([*path, module])}"
        if module not in seen:
            found = {name for name in INTERNAL[module] if name != module}
            seen[module] = found.union(*(below(name, (*path, module)) for name in found))
        return seen[module]

    assert "sr3_jax.errors" in set.union(*map(below, IMPORTS))


@pytest.mark.parametrize("here", [name for floor in FLOORS for name in sorted(floor)])
def test_a_room_imports_only_the_floors_below_it(here):
    for module in [module for module in IMPORTS if room(module) == here]:
        for seen in (INSIDE[module] & FLOOR.keys()) - {here}:
            assert FLOOR[seen] < FLOOR[here], f"{module} imports {seen}"
            assert seen not in MAY_NOT_SEE.get(here, set()), f"{module} imports {seen}"


def test_the_command_line_is_imported_by_main_alone():
    assert {room(module) for module, inside in INSIDE.items() if "cli" in inside} == {
        "cli",
        "__main__",
    }


def test_diffusion_imports_jax_and_numpy_only():
    for module in [module for module in IMPORTS if room(module) == "diffusion"]:
        assert OUTSIDE[module] <= {"jax", "numpy", "jaxtyping"} | sys.stdlib_module_names, module


def test_flax_is_imported_by_models_alone_and_orbax_by_checkpoints_alone():
    assert {room(module) for module, names in OUTSIDE.items() if "flax" in names} == {"models"}
    assert [module for module, names in OUTSIDE.items() if "orbax" in names] == [
        "sr3_jax.checkpoints.workdir"
    ]


def test_nothing_private_of_another_package_is_imported():
    for module, names in IMPORTS.items():
        private = [
            name
            for name in names
            if any(part.startswith("_") and part != "__future__" for part in name.split("."))
        ]
        assert not private, f"{module} imports {private}"


def test_tensorflow_and_torch_are_imported_nowhere():
    for module, names in OUTSIDE.items():
        assert not names & {"tensorflow", "torch"}, module


@pytest.mark.parametrize(
    "program",
    [
        "import sr3_jax",
        "from sr3_jax import *",
        "import sr3_jax.training.run, sr3_jax.evaluation.held_out",
    ],
)
def test_importing_brings_neither_tensorflow_nor_torch(program):
    check = (
        "import sys; "
        "sys.exit(str({'tensorflow', 'torch', 'tensorboard'} & sys.modules.keys() or 'none'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {check}"], capture_output=True, text=True
    )
    assert done.stderr.strip() == "none"


def test_importing_the_package_alone_does_not_even_bring_jax():
    program = "import sr3_jax, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
