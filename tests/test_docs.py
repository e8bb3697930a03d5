"""The site is built without a warning and holds what the code has.

What it says to type, the command line takes.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from sr3_jax import cli
from sr3_jax import config as config_lib

# ml_collections'
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "launch/README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
    ]
)
PAGES.remove(ROOT / "docs/extending.md")  # tells of what is not there; test_extending.py tries it
FIELDS = config_lib.flatten(config_lib.base())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, as `make docs` builds it."""
    place = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={place}"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


def test_every_page_of_the_navigation_is_there_and_reads_nothing_from_elsewhere(site):
    def pages(node) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for part in (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        ):
            yield from pages(part)

    wanted = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert {"index.md", "models.md", "launch/README.md", "api/diffusion.md"} <= set(wanted)
    for page in wanted:
        page = str(Path(page).with_suffix(".html"))
        text = (site / re.sub("README.html$", "index.html", page)).read_text()
        assert not re.findall(
            r"<(?:script|img|iframe)[^>]* src=.?https?:|<link[^>]* href=.?https?:", text
        ), page


def test_lists_made_from_the_code_are_whole(site):
    configs, commands = ((site / f"{page}.html").read_text() for page in ("configs", "commands"))
    assert [field for field in FIELDS if f"<code>{field}</code>" not in configs] == []
    assert [
        path.stem
        for path in ROOT.glob("configs/*.py")
        if f'href="configs/{path.stem}.html"' not in configs
    ] == []
    assert [name for name in cli.COMMANDS if f'id="{name}"' not in commands] == []
    api = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in (
        "diffusion.samplers.ddim",
        "inference.upscaler.Upscaler",
        "metrics.lpips.lpips",
        "method.Method",
    ):
        assert f'id="sr3_jax.{name}"' in api


NETWORK = "sr3_jax/weights/faces-16-64.safetensors"


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """The `sr3 …` in a page, without the `sr3`, and whether it is a line of its own.

    Such a line is meant to be typed.
    """
    text = re.sub(r"\\\n\s*", " ", text)
    text = re.sub(r"^ *```.*$", "", text, flags=re.MULTILINE)  # no backtick that opens or closes
    yield from ((found, True) for found in re.findall(r"^ *sr3 +(.+)$", text, re.MULTILINE))
    for code in re.findall(r"`([^`]+)`", text):
        if found := re.match(r"(?:.*\s)?sr3 +([a-z-].*)", " ".join(code.split())):
            yield found[1], False


def command_of(words: list[str]) -> tuple[click.Context, list[str]]:
    """The command, not yet parsed, with its words; of `sr3 study serve …` the inner one."""
    name, command, rest = cli.sr3.resolve_command(click.Context(cli.sr3), words)
    if isinstance(command, click.Group) and rest[:1] and rest[0] in command.commands:
        name, command, rest = f"{name} {rest[0]}", command.commands[rest[0]], rest[1:]
    return click.Context(command, info_name=f"sr3 {name}"), rest


@pytest.mark.fast
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_in_the_docs_is_one_that_the_command_line_takes(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line, typed in commands(page.read_text()):
        line, _, _ = line.partition(" #")
        # A network of the reader's: any will do
        line = re.sub(r"--config=\S+\.safetensors", f"--config={NETWORK}", line)
        words = shlex.split(line)
        if words[0].startswith("-") or words[0] == "…":
            continue
        assert words[0] in cli.COMMANDS, line
        context, rest = command_of(words)
        if typed and not {"…", "["} & set(line):
            # Where ml_collections loads every config
            monkeypatch.delitem(sys.modules, "config_config", raising=False)
            context.command.parse_args(context, rest)
            continue
        known = {
            name
            for param in context.command.get_params(context)
            for name in (*param.opts, *param.secondary_opts)
        }
        for flag in re.findall(r"(--[a-z][a-z_-]*)(?![\w.-])", line):
            assert flag.replace("_", "-") in known, line


@pytest.mark.fast
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_field_in_the_docs_is_one_of_the_config(page):
    named = re.findall(r"--config\.([a-z_.]+)", page.read_text())
    named += re.findall(
        r"`((?:data|task|model|schedule|sample|train|mesh)\.[a-z_]+)", page.read_text()
    )
    assert [field for field in named if field not in FIELDS] == []
