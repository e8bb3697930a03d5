"""What `pip install sr3_jax` brings, and what the wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import metadata, requires
from pathlib import Path

import numpy as np
import pytest

from sr3_jax.images import arrays

ROOT = Path(__file__).parent.parent
SETUP = (ROOT / "setup.py").read_text()


def base_requirements():
    return [
        re.match(r"[\w.-]+", line)[0].lower()
        for line in requires("sr3_jax")
        if "extra ==" not in line
    ]


@pytest.mark.fast
def test_the_base_install_is_free_of_tensorflow_and_torch():
    names = base_requirements()
    assert {"jax", "flax", "numpy"} <= set(names)
    assert not [
        name
        for name in names
        if name.startswith(("tensorflow", "torch", "tf-")) and name != "tensorflow-datasets"
    ]


@pytest.mark.fast
def test_the_extras_are_those_of_the_readme_and_torch_is_for_the_benchmark_alone():
    extras = metadata("sr3_jax").get_all("Provides-Extra")
    assert {"tensorboard", "tpu", "cuda", "test", "bench", "faces", "serve"} <= set(extras)
    for line in requires("sr3_jax"):
        assert not line.startswith(("torch", "diffusers")) or 'extra == "bench"' in line, line


@pytest.mark.fast
def test_every_base_requirement_has_a_lower_bound_and_a_reason():
    block = re.search(r"^REQUIRES = \[\n(.*?)^\]", SETUP, re.DOTALL | re.MULTILINE)[1]
    lines = block.strip().splitlines()
    assert len(lines) == len(base_requirements())
    for line in lines:
        assert re.fullmatch(r'\s*"[\w-]+(\[\w+\])?>=[\d.]+",  # \w.{10,}', line), line


@pytest.mark.fast
def test_setup_py_is_the_only_place_for_metadata():
    assert "project" not in tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert not (ROOT / "setup.cfg").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that pip makes of this tree."""
    # Building writes beside setup.py
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "sr3_jax", source / "sr3_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "-q", "-w", target],
        cwd=source,
        check=True,
    )
    [wheel] = target.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_holds_every_module_the_weights_and_the_types_marker_and_gives_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        scripts = next(
            archive.read(name).decode() for name in held if name.endswith("entry_points.txt")
        )
    package = ROOT / "sr3_jax"
    for path in [
        *package.rglob("*.py"),
        *package.glob("weights/*"),
        *package.glob("**/page/*"),
        package / "py.typed",
    ]:
        assert path.relative_to(ROOT).as_posix() in held
    assert "sr3 = sr3_jax.cli:main" in scripts
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"sr3_jax"}


@pytest.mark.slow
def test_what_the_wheel_installs_runs_elsewhere_by_itself(wheel, tmp_path):
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", target, wheel],
        check=True,
    )
    arrays.write(elsewhere / "face.png", np.full((16, 16, 1), 99, np.uint8))

    def run(*command):
        environment = os.environ | {"PYTHONPATH": str(target), "JAX_NUM_CPU_DEVICES": "1"}
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert Path(
        run(sys.executable, "-c", "import sr3_jax; print(sr3_jax.__file__)").strip()
    ).is_relative_to(target)
    assert "sr3 COMMAND" in run(target / "bin" / "sr3", "--help")
    run(target / "bin" / "sr3", "upscale", "face.png", "--output=large.png", "--steps=1")
    assert arrays.read_size(elsewhere / "large.png") == (64, 64)
