"""The command line as a user runs it.

What is right works; what is wrong is one sentence, exit code 2 and no traceback.

`main` runs in this process, where eight devices are faked, so batches are multiples of eight; a few
commands run in a new one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.data.faces import ORL_CARD, OrlFaces
from sr3_jax.images import arrays
from sr3_jax.runtime import parallel
from sr3_jax.training import overfit
from tests import tiny

# ml_collections'
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIGS = Path(__file__).parent.parent / "configs"

CONFIG = """
import sr3_jax.config

def get_config():
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size = 32, 16
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention = 8, (1,), 1, ()
    model.image_channels, model.space_to_depth, model.predict = 1, 2, "v"
    config.sample.steps = 2
    config.train.batch_size, config.train.steps, config.train.evaluate_images, config.train.sample_images = 8, 2, 2, 2
    return config
"""  # noqa: E501


@pytest.fixture(scope="module", autouse=True)
def _one_process():
    """JAX runs already, too late to look for a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "start", lambda config=None: None)
        yield


@pytest.fixture(autouse=True)
def _config_files_are_loaded_anew(monkeypatch):
    """ml_collections loads each into the same module, where names of the one before remain."""
    monkeypatch.delitem(sys.modules, "config_config", raising=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny config, wrong ones, and images; tests only read it."""
    place = tmp_path_factory.mktemp("place")
    files = {
        "tiny.py": CONFIG,
        "syntax.py": "def get_config(:\n",
        "raises.py": "def get_config():\n    return 1 / 0\n",
        "exits.py": "raise SystemExit(0)\n",
        "no_function.py": "config = 3\n",
        "no_config.py": "def get_config():\n    return {'model': 3}\n",
        "nothing.py": "def get_config():\n    pass\n",
        "other.py": (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'model': 3})\n"
        ),
        "typo.py": CONFIG.replace("model.channels, ", "model.chanels, "),
        "mistyped.py": CONFIG.replace("config.sample.steps = 2", "config.sample.steps = 'two'"),
        "takes_no_argument.py": CONFIG,
        "file.txt": "a file",
    }
    for name, text in files.items():
        (place / name).write_text(text)
    (place / "empty").mkdir()
    photograph = photographs.astronaut()
    for i in range(4):
        for folder in ("good", "bad"):
            (place / folder).mkdir(exist_ok=True)
            arrays.write(place / folder / f"{i}.png", photograph[50 * i : 50 * i + 40, :40])
    (place / "bad" / "fake.png").write_text("no image")
    (place / "bad" / "cut.png").write_bytes((place / "bad" / "0.png").read_bytes()[:1000])
    arrays.write(place / "bad" / "small.png", photograph[:8, :8])
    arrays.write(place / "large.png", photograph[:17, :16])
    (place / "mine").mkdir()
    (place / "mine" / "stats.jsonl").write_text("my own statistics")
    face = Image.fromarray(OrlFaces(range(31, 41))[0].pixels[14:106, :, 0]).resize(
        (16, 16), Image.Resampling.BICUBIC
    )
    face.save(place / "face.png")
    return place


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of a command in this process."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def in_a_new_process(*arguments, env=None, **options):
    command = [sys.executable, "-m", "sr3_jax", *map(str, arguments)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | (env or {})
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


@pytest.mark.fast
def test_flags_may_be_written_with_dashes_or_underscores(capsys):
    for flag in ("--no-match-input", "--no_match_input", "--match_input"):
        done = run(capsys, "upscale", "a.png", "--output=b.png", flag, "--steps=-1")
        check_bad(*done, ("--steps=-1 must lie between 0",))  # so the flag before it was known


# -- help


@pytest.mark.fast
@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], []])
def test_the_overview_names_every_command_and_exits_with_0(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    for name in cli.COMMANDS:
        assert re.search(rf"^ +{name} +\S", out, re.MULTILINE)


TEACHES = {
    "train": ("--config", "--config.FIELD", "--fields", "--workdir", "SIGTERM"),
    "edit": ("--task", "colourise", "restore_jpeg", "--mask", "--margin", "--noise", "--samples"),
    "import": ("--from", "--json", "--hr-size", "PyTorch is not needed"),
    "generate": ("--stage", "--classes", "--guidance", "--augment", "--shard", "manifest.json"),
    "evaluate": (
        "--checkpoint",
        "--workdir",
        "--samples",
        "[default: 1]",
        "results.json",
        "grid.png",
        "bicubic",
        "table3",
        "--export",
    ),
    "upscale": (
        "IN…",
        "--output",
        "--checkpoint",
        "photos-4x",
        "--seed",
        "--samples",
        "--overwrite",
    ),
    "serve": ("--host", "--port", "127.0.0.1", "[default: 8000]", "[serve]", "Ctrl-C"),
    "demo": ("--output", "--image", "demo.png", "[faces,photos]"),
    "overfit": ("--config", "train.overfit_loss", "Exit code 1"),
    "check-data": ("--config", "--output", "data.folder", "contact sheet"),
    "params": ("--config", "without allocating"),
    "prepare": (
        "SOURCE",
        "--size",
        "--output",
        "data.source=records",
        "photos",
        "fashion",
        "--packages",
        "DATA.md",
    ),
    "export": ("--checkpoint", "--output", ".safetensors", "bfloat16", "--data-card", "DATA.md"),
    "show": ("CHECKPOINT", "config", "data card"),
    "compile": ("--topology", "v5e:4x8", "--what", "--json", "estimated", "[aot]", "Exit code 1"),
    "search": (
        "--checkpoint",
        "--steps",
        "--trials",
        "[default: 64]",
        "--metric",
        "frontier",
        "schedules.json",
    ),
    "train-classifier": ("--data", "--output", "--size", "--epochs", "held-out", "not FID"),
    "statistics": ("FOLDER", "--inception", "--output", ".npz", "tf1-bilinear"),
    "study": ("create", "serve", "export", "collect", "report", "fool rate"),
    "profile": ("--config", "--steps", "--output", "ui.perfetto.dev", "--json"),
}


@pytest.mark.fast
@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_command_teaches_it_and_exits_with_0_whatever_stands_beside_it(
    capsys, command, flag
):
    code, out, err = run(capsys, command, "--bogus=1", flag)
    assert (code, err) == (0, "")
    assert f"Usage: sr3 {command} " in out
    said = " ".join(out.split())
    for word in TEACHES[command]:
        assert word in said


@pytest.mark.fast
def test_the_help_of_upscale_fits_a_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert len(run(capsys, "upscale", "--help")[1].splitlines()) <= 58


@pytest.mark.fast
def test_the_fields_of_the_config_are_listed_with_their_meaning(capsys):
    code, out, err = run(capsys, "train", "--fields")
    assert (code, err) == (0, "")
    assert "model.channels = 128" in out
    assert "train.batch_size = 256  # over all devices" in out


@pytest.mark.fast
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_a_file_of_its_own_named_as_it_is_typed(name):
    module = import_module(f"sr3_jax.cli.{name.replace('-', '_')}")
    assert module.run.name == name
    assert cli.COMMANDS[name][-1] in ".?"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("sr3 up", "upscale"),
        ("sr3 upscale --ste", "--steps"),
        ("sr3 upscale --checkpoint fac", "faces-16-64"),
        ("sr3 study se", "serve"),
    ],
)
def test_a_shell_completes_commands_flags_and_shipped_names(line, completed):
    environment = {
        "_SR3_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = in_a_new_process(env=environment)
    assert f"plain,{completed}" in done.stdout.splitlines(), done.stderr


@pytest.mark.fast
def test_the_package_runs_as_a_module_and_knows_its_version():
    help_, version = in_a_new_process("--help"), in_a_new_process("--version")
    assert (help_.returncode, help_.stderr, version.returncode, version.stderr) == (0, "", 0, "")
    assert "sr3 [OPTIONS] COMMAND" in help_.stdout
    assert version.stdout.strip().count(".") == 2


# -- what is wrong


CHANGED = {  # --config=tiny.py --config.FIELD=VALUE: words of the sentence
    "model.chanels=8": ("model.chanels", "did you mean model.channels"),
    "train.batchsize=8": ("train.batchsize", "train.batch_size"),
    "chanels=8": ("chanels", "model.channels"),
    "zzz=8": ("--config.zzz", "no such field", "data.hr_size"),
    "model=8": ("--config.model", "no such field"),
    "model.channels=many": ("model.channels=many", "a whole number", "such as 8"),
    "model.channels=8.5": ("model.channels=8.5", "a whole number"),
    "model.channels=": ("model.channels=", "a whole number"),
    "train.learning_rate=fast": ("train.learning_rate=fast", "a number"),
    "data.flip=maybe": ("data.flip=maybe", "true or false"),
    "model.multipliers=(1,": ("model.multipliers=(1,", "a list", "(1,)"),
    "model.multipliers=(1,x)": ("model.multipliers", "whole numbers"),
    "model.predict=noise": ("model.predict = 'noise'", "'epsilon', 'v', 'y_0'"),
    "data.hr_size=33": ("data.lr_size = 16 must divide data.hr_size = 33",),
    "data.lr_size=32": ("data.lr_size = 32 must be smaller than data.hr_size = 32",),
    "data.lr_size=12": ("data.lr_size = 12 must divide",),
    "model.multipliers=(1,1,1,1,1,1)": ("data.hr_size = 32 must be divisible by 64",),
    "model.attention=(7,)": ("model.attention = (7,)", "the levels are [16]"),
    "model.head_channels=3": ("model.head_channels = 3", "must divide the 8 channels"),
    "train.accumulate=3": ("train.batch_size = 8 must be divisible by train.accumulate = 3",),
    "seed=-1": ("seed = -1",),
    "train.batch_size=9": ("train.batch_size / train.accumulate = 9", "number of devices, 8"),
    "mesh.fsdp=3": ("mesh.fsdp = 3", "8", "devices"),
    "sample.beta_start=0.999": ("sample.schedule = 'linear' cannot give 2 steps",),
    "data.source=folder": ("data.folder", "--config.data.folder=FOLDER"),
    "data.source=tfds": ("data.name", "--config.data.name="),
    "train.init_from=nowhere": ("no checkpoint at 'nowhere'",),
}
NEEDS_TRAIN = ("train.batch_size", "mesh", "sample.beta_start", "data.source", "train.init_from")


def check_bad(code, out, err, words):
    assert code == 2, err
    assert "Traceback" not in out + err
    [line] = [line for line in err.splitlines() if line.startswith("sr3: ")]
    assert err.rstrip("\n").splitlines()[-1] == line
    for word in words:
        assert word in line
    assert len(line) < 1500


@pytest.mark.fast
@pytest.mark.parametrize("change", CHANGED)
def test_a_wrong_field_is_one_sentence_before_anything_is_allocated_or_written(
    place, tmp_path, capsys, change
):
    config = [f"--config={place / 'tiny.py'}", f"--config.{change}"]
    train = change.startswith(NEEDS_TRAIN)
    command = ["train", *config, f"--workdir={tmp_path / 'run'}"] if train else ["params", *config]
    check_bad(*run(capsys, *command), CHANGED[change])
    assert not (tmp_path / "run" / "checkpoints").exists()


COMMAND_LINES = {
    "an unknown command": ("fly", ("no command 'fly'", "train", "upscale")),
    "a flag for a command": ("--config={p}/tiny.py", ("no such option '--config' (sr3 --help)",)),
    "an unknown flag": (
        "params --config={p}/tiny.py --bogus=1",
        ("no such option '--bogus'", "sr3 params --help"),
    ),
    "a flag that is almost right": ("evaluate --chekpoint=x", ("chekpoint", "checkpoint")),
    "a flag without its value": ("params --config", ("--config=: no such file",)),
    "a word too many": ("params {p}/tiny.py", ("unexpected extra argument",)),
    "a word after the config": (
        "params --config={p}/tiny.py more",
        ("unexpected extra argument (more)",),
    ),
    "no config": ("params", ("params needs --config",)),
    "an empty config": ("params --config=", ("--config=: no such file",)),
    "fields without a config": (
        "train --workdir=x --config.seed=1",
        ("train needs --config=FILE before",),
    ),
    "a config that is not there": ("params --config={p}/none.py", ("none.py: no such file",)),
    "a folder for a config": ("params --config={p}", ("no such file",)),
    "a config with a syntax error": (
        "params --config={p}/syntax.py",
        ("syntax.py", "SyntaxError", "line 1"),
    ),
    "a config that raises": (
        "params --config={p}/raises.py",
        ("raises.py (line 2): ZeroDivisionError: division by zero",),
    ),
    "a config that exits": ("params --config={p}/exits.py", ("exits.py (line 1): SystemExit",)),
    "a config without get_config": (
        "params --config={p}/no_function.py",
        ("no_function.py", "get_config"),
    ),
    "a config that is a dict": (
        "params --config={p}/no_config.py",
        ("{'model': 3}", "sr3_jax.config.base()"),
    ),
    "a config that is nothing": (
        "params --config={p}/nothing.py",
        ("None", "sr3_jax.config.base()"),
    ),
    "another project's config": (
        "params --config={p}/other.py",
        ("has no field", "sr3_jax.config.base()"),
    ),
    "a config with a typing error": (
        "params --config={p}/typo.py",
        ("typo.py (line 8)", "chanels", 'Did you mean "channels"'),
    ),
    "a config with a wrong type": (
        "params --config={p}/mistyped.py",
        ("mistyped.py (line 10)", "TypeError", "steps"),
    ),
    "a config with an argument": (
        "params --config={p}/takes_no_argument.py:x",
        ("takes_no_argument.py:x", "get_config()"),
    ),
    "no workdir": (
        "train --config={p}/tiny.py",
        ("missing option '--workdir'", "sr3 train --help"),
    ),
    "an empty workdir": (
        "train --config={p}/tiny.py --workdir=",
        ("--workdir= is empty (sr3 train --help)",),
    ),
    "a file as workdir": ("train --config={p}/tiny.py --workdir={p}/file.txt", ("file.txt",)),
    "a missing folder": (
        "train --config={p}/tiny.py --workdir={w} {folder}{p}/none",
        ("data.folder = ", "none' is not a folder"),
    ),
    "an empty folder": (
        "train --config={p}/tiny.py --workdir={w} {folder}{p}/empty",
        ("empty' holds no images", ".png"),
    ),
    "too many bad images": (
        "train --config={p}/tiny.py --workdir={w} {folder}{p}/bad "
        "--config.data.eval_folder={p}/good",
        (
            "2 of 7 images cannot be used",
            "data.max_bad_fraction = 0.01",
            "fake.png",
            "small.png is 8×8, smaller than",
        ),
    ),
    "no usable image": (
        "train --config={p}/tiny.py --workdir={w} {folder}{p}/good "
        "--config.data.eval_folder={p}/good --config.data.hr_size=64",
        ("none of 4 images can be used", "40×40, smaller than data.hr_size = 64"),
    ),
    "bad images in check-data": (
        "check-data --config={p}/tiny.py --output={w}.png {folder}{p}/bad "
        "--config.data.eval_folder={p}/good",
        ("3 of 7 images cannot be used", "cut.png"),
    ),
    "a sheet of no image format": (
        "check-data --config={p}/tiny.py --output={w}.foo",
        ("suffix '.foo'", ".png"),
    ),
    "a mesh that is larger than the devices": (
        "train --config={p}/tiny.py --workdir={w} --config.mesh.data=16 --config.mesh.fsdp=-1",
        ("mesh.data = 16 and mesh.fsdp = -1", "must be 8, the number of devices"),
    ),
    "somebody's folder as workdir": (
        "train --config={p}/tiny.py --workdir={p}/mine",
        ("mine holds stats.jsonl but no config.json", "use another --workdir"),
    ),
    "no checkpoint": ("evaluate", ("--workdir=DIR or --checkpoint=PATH",)),
    "a checkpoint that is not there": ("evaluate --workdir={p}/none", ("no checkpoint at", "none")),
    "a folder without checkpoints": (
        "evaluate --checkpoint={p}/empty",
        ("empty holds no checkpoint",),
    ),
    "a checkpoint that is another file": (
        "evaluate --checkpoint={p}/file.txt",
        ("file.txt is not a complete .safetensors",),
    ),
    "no samples": (
        "evaluate --checkpoint={p}/none --samples=0",
        ("--samples=0 must lie between 1",),
    ),
    "negative steps": (
        "evaluate --checkpoint={p}/none --steps=-1",
        ("--steps=-1 must lie between 0",),
    ),
    "a seed too large": (
        "upscale {p}/face.png --output={w} --seed=9999999999",
        ("--seed=9999999999", "2147483647"),
    ),
    "samples that are no number": ("evaluate --samples=few", ("--samples=few",)),
    "no input": ("upscale --output=x", ("missing argument 'IN…'",)),
    **{
        f"part {shard} of a folder": (
            f"upscale {{p}} --output={{w}} --shard={shard}",
            (f"--shard={shard} must be I/N, two whole numbers with I from 1 to N",),
        )
        for shard in ("5/4", "0/4", "x", "1/0", "1/2/3", "-1/2", "")
    },
    "part of one image": (
        "upscale {p}/face.png --output={w} --shard=1/2",
        ("--shard is for a folder or several files",),
    ),
    "part of an export": (
        "evaluate --protocol=photos --export={w} --shard=1/2",
        ("--shard is for measuring", "--export"),
    ),
    "an empty output": ("upscale {p}/face.png --output=", ("--output= is empty",)),
    "an image and JSON on one pipe": (
        "upscale {p}/face.png -o - --json",
        ("both go to standard output",),
    ),
    "a value for a switch": (
        "upscale {p}/face.png -o x --overwrite=1",
        ("does not take a value", "sr3 upscale --help"),
    ),
    "no output": ("upscale {p}/face.png", ("missing option '--output'",)),
    "an input that is not there": (
        "upscale {p}/none.png --output={w}",
        ("none.png does not exist",),
    ),
    "an input folder without images": (
        "upscale {p}/empty --output={w}",
        ("empty holds no images",),
    ),
    "an output of no image format": (
        "upscale {p}/face.png --output={w}.txt",
        ("suffix '.txt'", ".png"),
    ),
    "the input as output": (
        "upscale {p}/face.png --output={p}/face.png --overwrite",
        ("face.png is an input",),
    ),
    "an unknown shipped name": (
        "upscale {p}/face.png --output={w} --checkpoint=faces-9",
        ("no checkpoint at 'faces-9'",),
    ),
    "an export of another suffix": (
        "export --checkpoint={p}/none --output={w}.bin",
        ("must end in .safetensors",),
    ),
    "an export with a card that is not there": (
        "export --checkpoint=faces-16-64 --output={w}.safetensors --data-card={p}/none.md",
        ("none.md cannot be read as a data card",),
    ),
    "two checkpoints to show": (
        "show faces-16-64 photos-4x",
        ("unexpected extra argument (photos-4x)",),
    ),
    "nothing to show": ("show {p}/none", ("no checkpoint at",)),
    "no size": ("prepare {p}/good --output={w}", ("prepare needs --size",)),
    "packages for a folder": (
        "prepare {p}/good --size=8 --output={w} --packages={p}",
        ("--packages is for photos and fashion",),
    ),
    "an export of another type": (
        "export --checkpoint={p}/none --output={w}.safetensors --dtype=int4",
        ("'--dtype'", "'int4' is not one of"),
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize(("line", "words"), COMMAND_LINES.values(), ids=COMMAND_LINES)
def test_a_wrong_command_line_is_one_sentence_and_nothing_is_touched(
    place, tmp_path, capsys, monkeypatch, line, words
):
    monkeypatch.chdir(tmp_path)
    fields = {
        "p": place,
        "w": tmp_path / "new",
        "folder": "--config.data.source=folder --config.data.folder=",
    }
    before = {
        path: path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    check_bad(*run(capsys, *line.format(**fields).split()), words)
    after = {
        path: path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert after == before
    assert [path for path in tmp_path.rglob("*") if path.name != "new.png"] == []


def test_a_new_process_too_says_one_sentence(place):
    for arguments in (
        ["fly"],
        ["params", "--config=none.py"],
        ["params", f"--config={place / 'tiny.py'}", "--config.sed=1"],
    ):
        done = in_a_new_process(*arguments, cwd=place)
        check_bad(done.returncode, done.stdout, done.stderr, ())
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be one")
@pytest.mark.parametrize(
    ("flags", "platforms", "asked"),
    [
        (["--device=gpu"], None, "--device=gpu"),
        ([], "cuda", "JAX_PLATFORMS=cuda"),
        ([], "gpu", "JAX_PLATFORMS=gpu"),
    ],
)
def test_a_device_that_is_not_there_is_told_in_one_sentence(
    place, tmp_path, monkeypatch, flags, platforms, asked
):
    if platforms:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    done = in_a_new_process(
        "upscale", place / "face.png", f"--output={tmp_path / 'large.png'}", *flags
    )
    assert (done.returncode, done.stdout) == (2, "")
    sentence = f"sr3: {asked}: JAX finds none on this machine (it needs the extra [cuda])"
    assert any(line.startswith(sentence) for line in done.stderr.splitlines())
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error(place):
    command = (
        f"{sys.executable} -m sr3_jax params --config={place / 'tiny.py'} | head -n 1; "
        "exit ${PIPESTATUS[0]}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- what is right


@pytest.mark.fast
@pytest.mark.parametrize(
    "arguments",
    [
        ["--config={}", "--config.model.channels=16"],
        ["--config.model.channels=16", "--config={}"],
        ["--config", "{}", "--config.model.channels", "16"],
        ["--config.model.channels=16", "--config", "{}"],
    ],
)
def test_the_config_may_stand_before_or_after_its_overrides_with_an_equals_sign_or_a_space(
    place, capsys, arguments
):
    plain = run(capsys, "params", f"--config={place / 'tiny.py'}")[1]
    code, out, err = run(
        capsys, "params", *(argument.format(place / "tiny.py") for argument in arguments)
    )
    assert (code, err) == (0, "")
    assert "(3, 3, 8, 16)" in out
    assert "(3, 3, 8, 8)" in plain


@pytest.mark.fast
def test_lists_booleans_and_texts_are_understood_as_a_user_writes_them(place, capsys):
    config = f"--config={place / 'tiny.py'}"
    for change in ("model.multipliers=(1,2)", "model.multipliers=1,2", "model.multipliers=[1, 2]"):
        assert "down_1_0/" in run(capsys, "params", config, f"--config.{change}")[1], change
    for change in (
        "--config.data.flip=false",
        "--noconfig.data.flip",
        "--config.data.folder=",
        "--config.data.flip",
    ):
        assert run(capsys, "params", config, change)[0] == 0, change


def test_params_prints_every_parameter_and_the_papers_total_without_allocating_it(capsys):
    # JAX's attention promotes bfloat16 by itself, which our strict settings refuse
    float32 = "--config.model.dtype=float32"
    code, out, err = run(capsys, "params", f"--config={CONFIGS / 'faces_16_128.py'}", float32)
    assert (code, err) == (0, "")
    assert "Total: 560," in out
    assert "gamma_embedding/dense_0/kernel" in out


@pytest.mark.fast
@pytest.mark.parametrize(
    ("after", "code", "verdict"), [(0.4, 0, "reached"), (0.6, 1, "NOT reached")]
)
def test_overfit_exits_with_1_exactly_when_its_goal_is_not_reached(
    place, capsys, monkeypatch, after, code, verdict
):
    monkeypatch.setattr(overfit, "overfit", lambda config: overfit.Outcome(1.0, after, 0.5))
    done = run(capsys, "overfit", f"--config={place / 'tiny.py'}")
    assert done == (code, f"loss 1.0000 → {after:.4f}; goal, below 0.5000: {verdict}\n", "")


def test_check_data_reports_orl_and_prints_where_the_contact_sheet_is(place, tmp_path, capsys):
    code, out, err = run(
        capsys,
        "check-data",
        f"--config={place / 'tiny.py'}",
        f"--output={tmp_path / 'new' / 'sheet.png'}",
    )
    assert (code, err) == (0, "")
    assert "training: 300 images usable, 0 dropped" in out
    assert out.splitlines()[-1] == str(tmp_path / "new" / "sheet.png")
    assert arrays.read_size(tmp_path / "new" / "sheet.png") == (3 * 128, 24 + 8 * 128)


def test_check_data_lists_every_bad_file_of_a_folder_before_it_fails(place, tmp_path, capsys):
    data = [
        "--config.data.source=folder",
        f"--config.data.folder={place / 'bad'}",
        f"--config.data.eval_folder={place / 'good'}",
    ]
    command = [
        "check-data",
        f"--config={place / 'tiny.py'}",
        f"--output={tmp_path / 'sheet.png'}",
        *data,
    ]
    code, out, err = run(capsys, *command)
    check_bad(code, out, err, ())
    assert all(f"  dropped: {name}.png" in out for name in ("cut", "fake", "small"))
    assert (tmp_path / "sheet.png").exists()
    again = [*command, "--config.data.max_bad_fraction=0.5"]
    code, out, err = run(capsys, *again)
    assert (code, out) == (2, "")
    assert "sheet.png exists; give --overwrite to replace it" in err
    assert run(capsys, *again, "--overwrite")[0] == 0


# -- the whole path


@pytest.fixture(scope="module")
def workdir(place, tmp_path_factory):
    """Two steps of training, as a user starts it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = in_a_new_process("train", f"--config={place / 'tiny.py'}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    (workdir.parent / "stdout.txt").write_text(done.stdout)
    return workdir


def test_training_says_what_it_trains_on_which_devices_and_in_how_much_memory(workdir):
    lines = (workdir.parent / "stdout.txt").read_text().splitlines()
    assert lines[0] == "devices: 1 × cpu, mesh data=1 fsdp=1"
    assert re.fullmatch(
        r"network: 0\.\d\d M parameters \(parameters\.txt\), sr3, float32", lines[1]
    )
    assert lines[2] == "data: orl, 16² → 32², batch 8"
    assert re.fullmatch(
        r"compiled in [\d.]+ s; memory per device, estimated by the compiler: [\d,]+ MiB \(.*\)",
        lines[3],
    )
    assert any(line.startswith("step 2/2 · loss ") for line in lines)
    parameters = (workdir / "parameters.txt").read_text()
    assert "gamma_embedding/dense_0/kernel" in parameters
    assert "Total: " in parameters


def test_tensorboard_gets_its_events_where_it_is_installed(workdir):
    pytest.importorskip("tensorboard")
    [events] = (workdir / "tensorboard").glob("events*")
    assert b"gradient_norm" in events.read_bytes()


def test_training_leaves_config_checkpoint_stats_and_samples_in_the_workdir(workdir):
    assert json.loads((workdir / "config.json").read_text())["model"]["channels"] == 8
    assert (workdir / "checkpoints" / "2").is_dir()
    stats = [json.loads(line) for line in (workdir / "stats.jsonl").read_text().splitlines()]
    assert stats[-1]["step"] == 2
    assert {"eval_psnr", "eval_ssim", "eval_consistency_db"} <= set(stats[-1])
    assert np.isfinite(stats[0]["loss"])
    assert arrays.read_size(workdir / "samples" / "00000002.png") == (4 * 128, 24 + 2 * 128)


def test_a_workdir_of_another_config_is_refused_with_the_differing_fields(workdir, place, capsys):
    before = (workdir / "config.json").read_bytes()
    command = [
        "train",
        f"--config={place / 'tiny.py'}",
        f"--workdir={workdir}",
        "--config.train.steps=3",
    ]
    words = (
        "another experiment",
        "model.channels: 16 here, 8 there",
        "seed: 1 here, 0 there",
        "--workdir",
    )
    done = run(capsys, *command, "--config.model.channels=16", "--config.seed=1")
    check_bad(*done, words)
    assert "train.steps" not in done[2]
    assert (workdir / "config.json").read_bytes() == before


def test_weights_of_another_network_are_refused_with_the_parameters_name_and_shapes(
    workdir, place, tmp_path, capsys
):
    command = [
        "train",
        f"--config={place / 'tiny.py'}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.init_from={workdir}",
    ]
    check_bad(
        *run(capsys, *command, "--config.model.channels=16"),
        ("another network", "down_0_0", "(8,)", "(16,)"),
    )
    assert not (tmp_path / "run").exists()


def test_evaluate_export_and_upscale_follow_from_the_workdir_alone(
    workdir, place, tmp_path, capsys
):
    code, out, _ = run(capsys, "evaluate", f"--workdir={workdir}", "--limit=4")
    assert code == 0
    results = workdir / "evaluation" / "held_out"
    assert out.splitlines()[-2:] == [str(results / "results.json"), str(results / "grid.png")]
    assert "bicubic" in out
    assert list(json.loads((results / "results.json").read_text())["methods"]) == ["bicubic", "SR3"]
    assert (results / "table.md").exists()

    exported, half = tmp_path / "tiny.safetensors", tmp_path / "half.safetensors"
    assert run(capsys, "export", f"--checkpoint={workdir}", f"--output={exported}")[:2] == (
        0,
        f"{exported}\n",
    )
    check_bad(
        *run(capsys, "export", f"--checkpoint={workdir}", f"--output={exported}"),
        ("exists", "--overwrite"),
    )
    assert (
        run(capsys, "export", f"--checkpoint={exported}", f"--output={half}", "--dtype=bfloat16")[0]
        == 0
    )
    assert half.stat().st_size < 0.75 * exported.stat().st_size

    # The data card: of the data, of a file, and the one that is there already.
    assert load_checkpoint(exported).data_card == load_checkpoint(half).data_card == ORL_CARD
    (tmp_path / "mine.md").write_text("My faces.")
    other = [
        f"--checkpoint={exported}",
        f"--output={half}",
        "--overwrite",
        f"--data-card={tmp_path / 'mine.md'}",
    ]
    assert run(capsys, "export", *other)[0] == 0
    code, out, _ = run(capsys, "show", half)
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, f"{half}, step 2", "My faces.")
    assert '"hr_size": ' in out

    # Elsewhere: from a face to a face twice as wide, and a bad file beside it.
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "face.png").write_bytes((place / "face.png").read_bytes())
    (tmp_path / "in" / "fake.png").write_text("no image")
    done = in_a_new_process(
        "upscale",
        "in",
        "--output=out",
        "--checkpoint=tiny.safetensors",
        "--samples=2",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout.split() == ["out/face-1.png", "out/face-2.png"]
    assert "fake.png is not an image" in done.stderr
    assert "Traceback" not in done.stderr
    assert {arrays.read(tmp_path / "out" / f"face-{i}.png", None).pixels.shape for i in (1, 2)} == {
        (32, 32, 1)
    }


def test_the_results_of_an_exported_file_are_where_the_help_says(
    workdir, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    export(load_checkpoint(workdir), tmp_path / "tiny.safetensors")
    code, out, _ = run(capsys, "evaluate", "--checkpoint=tiny.safetensors", "--limit=2")
    assert code == 0
    assert out.splitlines()[-2] == "evaluation/tiny/held_out/results.json"
    assert (tmp_path / "evaluation" / "tiny" / "held_out" / "results.json").exists()


def test_colour_photographs_go_all_the_way_and_what_was_converted_is_said(tmp_path, capsys):
    """From a folder, prepared, through training and evaluation to a larger picture.

    One photograph in three has an alpha channel.
    """
    photograph = Image.fromarray(photographs.astronaut())
    for folder, count in (("in", 30), ("test", 3)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            cut = photograph.crop((10 * i, 5 * i, 10 * i + 24, 5 * i + 20))
            cut.convert("RGB" if i % 3 else "RGBA").save(tmp_path / folder / f"{i}.png")
    code, out, _ = run(
        capsys,
        "prepare",
        tmp_path / "in",
        "--size=16",
        f"--output={tmp_path / 'records'}",
        "--workers=2",
    )
    assert (code, out.splitlines()[0]) == (0, "converted: 10 × alpha flattened onto white")

    data = [
        "--config.data.source=folder",
        f"--config.data.folder={tmp_path / 'in'}",
        "--config.model.image_channels=3",
    ]
    data.append(f"--config.data.eval_folder={tmp_path / 'test'}")
    flags = [f"--config={tiny.__file__}", f"--workdir={tmp_path / 'run'}", "--config.train.steps=2"]
    done = in_a_new_process("train", *flags, *data)
    assert done.returncode == 0, done.stderr
    assert "× alpha flattened onto white" in next(
        line for line in done.stdout.splitlines() if line.startswith("converted")
    )

    code, out, _ = run(capsys, "evaluate", f"--workdir={tmp_path / 'run'}")
    assert code == 0
    assert out.startswith("3 held-out images, folder\nconverted: 1 × alpha flattened onto white\n")

    photograph.resize((8, 8)).save(tmp_path / "small.png")
    command = [
        "upscale",
        tmp_path / "small.png",
        f"--output={tmp_path / 'large.png'}",
        f"--checkpoint={tmp_path / 'run'}",
    ]
    assert run(capsys, *command)[0] == 0
    assert arrays.read(tmp_path / "large.png", None).pixels.shape == (16, 16, 3)


def test_results_that_cannot_be_written_are_an_error_before_the_work(workdir, place, capsys):
    code, out, err = run(
        capsys, "evaluate", f"--workdir={workdir}", f"--output={place / 'file.txt'}"
    )
    check_bad(code, out, err, ("file.txt",))
    assert out == ""


@pytest.mark.parametrize("damage", ["cut", "empty", "other bytes"])
def test_a_damaged_export_is_named(workdir, place, tmp_path, capsys, damage):
    exported, output = tmp_path / "tiny.safetensors", tmp_path / "o.png"
    export(load_checkpoint(workdir), exported)
    data = exported.read_bytes()
    exported.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "other bytes": b"x" * 1000}[damage]
    )
    check_bad(
        *run(
            capsys, "upscale", place / "face.png", f"--output={output}", f"--checkpoint={exported}"
        ),
        (str(exported),),
    )
    assert not output.exists()


def test_a_config_is_also_that_of_a_network(workdir, place, tmp_path, capsys):
    change, exported = "--config.model.channels=16", tmp_path / "net.safetensors"
    assert run(capsys, "export", f"--checkpoint={workdir}", f"--output={exported}")[0] == 0
    expected = run(capsys, "params", f"--config={place / 'tiny.py'}", change)
    assert expected[0] == 0
    for file in (exported, workdir / "config.json"):
        assert run(capsys, "params", change, f"--config={file}") == expected
        check_bad(
            *run(capsys, "params", f"--config={file}", "--config.model.chanels=8"),
            ("no such field; did you mean model.channels",),
        )
        damaged = tmp_path / f"damaged{file.suffix}"
        damaged.write_bytes(file.read_bytes()[:90])
        check_bad(*run(capsys, "params", f"--config={damaged}"), (str(damaged), " is not a "))


def test_a_damaged_checkpoint_of_a_workdir_is_named(workdir, tmp_path, capsys):
    shutil.copytree(workdir, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints" / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    words = (
        str(tmp_path / "run" / "checkpoints" / "2"),
        "damaged or of another network",
        "remove that folder",
    )
    check_bad(*run(capsys, "evaluate", f"--workdir={tmp_path / 'run'}"), words)


def test_an_export_whose_config_is_another_networks_is_named_with_the_parameter_and_both_shapes(
    workdir, tmp_path, capsys
):
    checkpoint = load_checkpoint(workdir)
    config = checkpoint.config.copy_and_resolve_references()
    config.model.channels = 16
    export(replace(checkpoint, config=config), tmp_path / "other.safetensors")
    words = ("other.safetensors is of another network", "down_0_0", "(8,)", "(16,)")
    check_bad(*run(capsys, "evaluate", f"--checkpoint={tmp_path / 'other.safetensors'}"), words)
