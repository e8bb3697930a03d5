"""Imports point one way (docs/architecture.md), and `import sr3_jax` brings neither TensorFlow nor torch."""

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
ROOMS = ("diffusion", "models", "data", "training", "inference", "evaluation", "serve", "profiling")
# What the rooms may import of the other rooms. `method` is where diffusion, models and data meet.
MAY_SEE = {
    "diffusion": set(),
    "models": set(),
    "data": set(),
    "training": {"data"},
    "inference": {"data"},
    "evaluation": {"data", "inference"},
    "serve": {"data", "inference"},
    "profiling": {"data", "training"},
}
# ... and of the modules beside them.
SERVANTS = {"errors", "paths", "atomic", "config", "checkpoints", "parallel", "images", "sheet", "method", "web"}
OF_METHOD = {"method", "checkpoints"}  # these two see diffusion and models, so that those below must not see them


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of the modules imported, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def of(path: Path) -> set[str]:
    package = name_of(path) if path.name == "__init__.py" else name_of(path.parent / "__init__.py")
    return set(imports(ast.parse(path.read_text()), package))


IMPORTS = {name_of(path): of(path) for path in SOURCES}
INSIDE = {module: {name.split(".")[1] for name in names if name.startswith("sr3_jax.")} for module, names in IMPORTS.items()}
OUTSIDE = {module: {name.partition(".")[0] for name in names} - {"sr3_jax"} for module, names in IMPORTS.items()}


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_parser_sees_relative_nested_and_aliased_imports():
    tree = ast.parse("from . import b\nfrom ..x.y import z as q\ndef f():\n  import jax._src.core as core")
    assert set(imports(tree, "p.sub")) == {"p.sub.b", "p.x.y.z", "jax._src.core"}
    assert len(IMPORTS) > 20
    assert set(map(room, IMPORTS)) >= set(ROOMS)


@pytest.mark.parametrize("here", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(here):
    for module in [module for module in IMPORTS if room(module) == here]:
        seen = INSIDE[module] & set(ROOMS) - {here}
        assert seen <= MAY_SEE[here], f"{module} imports {seen - MAY_SEE[here]}"


def test_diffusion_and_models_know_nobody():
    for module in [module for module in IMPORTS if room(module) in ("diffusion", "models")]:
        assert INSIDE[module] <= {room(module)}, module


def test_data_reaches_neither_diffusion_nor_models_through_others():
    for module in [module for module in IMPORTS if room(module) == "data"]:
        assert INSIDE[module] <= SERVANTS - OF_METHOD | {"data"}, module
    for servant in SERVANTS - OF_METHOD:
        assert not INSIDE[f"sr3_jax.{servant}"] & (OF_METHOD | set(ROOMS)), servant


def test_only_method_joins_diffusion_models_and_data():
    for module, inside in INSIDE.items():
        if module != "sr3_jax.method":
            assert not {"diffusion", "models"} & inside - {room(module)}, f"{module} should ask sr3_jax.method"


def test_the_command_line_is_imported_by_main_alone():
    assert {room(module) for module, inside in INSIDE.items() if "cli" in inside} == {"cli", "__main__"}


def test_diffusion_imports_jax_and_numpy_only():
    for module in [module for module in IMPORTS if room(module) == "diffusion"]:
        assert OUTSIDE[module] <= {"jax", "numpy", "jaxtyping"} | sys.stdlib_module_names, module


def test_flax_is_imported_by_models_alone_and_orbax_by_checkpoints_alone():
    assert {room(module) for module, names in OUTSIDE.items() if "flax" in names} == {"models"}
    assert [module for module, names in OUTSIDE.items() if "orbax" in names] == ["sr3_jax.checkpoints"]


def test_nothing_private_of_another_package_is_imported():
    for module, names in IMPORTS.items():
        private = [name for name in names if any(part.startswith("_") and part != "__future__" for part in name.split("."))]
        assert not private, f"{module} imports {private}"


def test_tensorflow_and_torch_are_imported_nowhere():
    for module, names in OUTSIDE.items():
        assert not names & {"tensorflow", "torch"}, module


@pytest.mark.parametrize(
    "program",
    ["import sr3_jax", "from sr3_jax import *", "import sr3_jax.training.loop, sr3_jax.evaluation.held_out"],
)
def test_importing_brings_neither_tensorflow_nor_torch(program):
    check = "import sys; sys.exit(str({'tensorflow', 'torch', 'tensorboard'} & sys.modules.keys() or 'none'))"
    done = subprocess.run([sys.executable, "-c", f"{program}; {check}"], capture_output=True, text=True)
    assert done.stderr.strip() == "none"


def test_importing_the_package_alone_does_not_even_bring_jax():
    program = "import sr3_jax, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
