"""What `pip install sr3_jax` brings, and what the wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import metadata, requires
from pathlib import Path

import numpy as np
import pytest
import yaml

import sr3_jax
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


@pytest.mark.fast
def test_the_version_is_the_same_wherever_it_is_said():
    assert metadata("sr3_jax")["Version"] == sr3_jax.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == sr3_jax.__version__
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert first == sr3_jax.__version__
    assert SETUP.count(sr3_jax.__version__) == 0


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive of this tree, and the wheel that is made of nothing but that archive."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    shutil.copytree(
        ROOT / "sr3_jax", source / "sr3_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--outdir", target, source)
    [wheel], [archive] = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def wheel(built):
    return built[0]


@pytest.mark.slow
def test_an_index_would_take_what_is_built(built):
    wheel, _ = built
    assert wheel.name == f"sr3_jax-{sr3_jax.__version__}-py3-none-any.whl"
    said = run(sys.executable, "-m", "twine", "check", "--strict", *built)
    assert said.count("PASSED") == 2
    assert wheel.stat().st_size < 90e6


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
def test_the_wheel_is_all_that_a_clean_environment_needs(wheel, tmp_path):
    """pip fetches the requirements; neither this environment nor this checkout is seen."""
    place, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(place, with_pip=True)
    binaries = place / "bin"
    run(binaries / "python", "-m", "pip", "install", "-q", wheel)
    arrays.write(elsewhere / "face.png", np.full((16, 16, 1), 99, np.uint8))
    unseen = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    environment = {name: value for name, value in os.environ.items() if name not in unseen}

    def there(*command):
        return run(*command, cwd=elsewhere, env=environment | {"JAX_NUM_CPU_DEVICES": "1"})

    shown = there(
        binaries / "python", "-c", "import sr3_jax; print(sr3_jax.__file__, sr3_jax.__version__)"
    )
    file, version = shown.split()
    assert Path(file).is_relative_to(place)
    assert there(binaries / "sr3", "--version").strip() == version == sr3_jax.__version__
    assert "sr3 COMMAND" in there(binaries / "sr3", "--help")
    there(binaries / "sr3", "upscale", "face.png", "--output=large.png", "--steps=1")
    assert arrays.read_size(elsewhere / "large.png") == (64, 64)
