"""What the site has beside the Markdown of docs/.

That is pages made of files elsewhere in the repository, and lists made from the code. A link is
written as it works in the repository, `../benchmarks/README.md`; here it becomes a link to the page
made of that file.
"""

import ast
import contextlib
import io
import json
import posixpath
import re
from base64 import b64decode
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel

from sr3_jax import cli
from sr3_jax import config as config_lib

ROOT = Path(__file__).parent.parent
MARKDOWN = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/tpu.md",
    "benchmarks/rivals/README.md",
    "launch/README.md",
]
CONFIGS = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("configs/*.py"))]
NOTEBOOKS = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("colab/*.ipynb"))]
API = (
    "diffusion models tasks objectives method config inference evaluation metrics data datasets "
    "training checkpoints images runtime study"
).split()

# a file of the repository: the page made of it
MADE = {name: str(Path(name).with_suffix(".md")) for name in MARKDOWN + CONFIGS + NOTEBOOKS}
SOURCES = {page: name for name, page in MADE.items()}
# ... or the page to go to instead
PAGES = MADE | {"README.md": "index.md", "configs": "configs.md"}
PAGES |= {f"sr3_jax/{room}{suffix}": f"api/{room}.md" for room in API for suffix in ("", ".py")}

FORMULAS: list[str] = []  # MathML, kept from Markdown


def on_files(files: Any, config: Any) -> None:
    def add(
        uri: str, content: str | bytes, inclusion: InclusionLevel = InclusionLevel.UNDEFINED
    ) -> None:
        files.append(File.generated(config, uri, content=content, inclusion=inclusion))

    for name in MARKDOWN:
        add(name, (ROOT / name).read_text())
    for name in CONFIGS:
        add(
            PAGES[name],
            f"# {Path(name).stem}\n\n```python\n{(ROOT / name).read_text()}```\n",
            InclusionLevel.NOT_IN_NAV,
        )
    for name in NOTEBOOKS:
        for uri, content in _notebook(name):
            add(uri, content)
    for room in API:
        add(
            f"api/{room}.md",
            "\n".join([f"# {room}", "", *(f"::: {module}\n" for module in _modules(room))]),
        )
    add("commands.md", "\n".join(_commands()))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    uri = page.file.src_uri
    here = posixpath.dirname(SOURCES.get(uri, f"docs/{uri}"))
    if uri == "configs.md":
        markdown = markdown.replace("<!-- configs -->", "\n".join(_configs())).replace(
            "<!-- fields -->", "\n".join(_fields())
        )

    def rewrite(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(here, link[2]))
        found = PAGES.get(target) or (
            target.removeprefix("docs/") if target.startswith("docs/") else None
        )
        return (
            f"{link[1]}{posixpath.relpath(found, posixpath.dirname(uri) or '.')}{link[3]}"
            if found
            else link[0]
        )

    return re.sub(r"(\]\()([^)#\s:]+)(#[^)\s]*\)|\))", rewrite, markdown)


def on_page_content(html: str, **_: Any) -> str:
    return re.sub("⟦([0-9]+)⟧", lambda found: FORMULAS[int(found[1])], html)


def _formula(found: re.Match) -> str:
    FORMULAS.append(convert(found[1] or found[2], display="block" if found[1] else "inline"))
    return f"⟦{len(FORMULAS) - 1}⟧"


def _notebook(name: str) -> Iterator[tuple[str, str | bytes]]:
    """The page of a notebook, and its pictures."""
    lines, pictures = list[str](), 0
    for cell in json.loads((ROOT / name).read_text())["cells"]:
        source, printed = "".join(cell["source"]), ""
        prose = re.sub(r"\$\$(.+?)\$\$|\$(.+?)\$", _formula, source, flags=re.DOTALL)
        lines += (
            [prose, ""] if cell["cell_type"] == "markdown" else ["```python", source, "```", ""]
        )
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if kind := next((kind for kind in data if kind.startswith("image/")), ""):
                picture = f"{Path(name).stem}-{pictures}.{kind.removeprefix('image/')}"
                yield f"{Path(name).parent}/{picture}", b64decode("".join(data[kind]))
                lines, pictures = [*lines, f"![what the cell shows]({picture})", ""], pictures + 1
            else:
                printed += "".join(output.get("text", data.get("text/plain", [])))
        # Bars, which a terminal would overwrite
        printed = re.sub(r"^[╸╺━]+ .*\n", "", printed, flags=re.MULTILINE)
        lines += ["```text", printed.rstrip(), "```", ""] if printed.strip() else []
    yield PAGES[name], "\n".join(lines)


def _modules(room: str) -> list[str]:
    """The modules of a package, or the one of that name."""
    folder = ROOT / "sr3_jax" / room
    if not folder.is_dir():
        return [f"sr3_jax.{room}"]
    found = [path for path in sorted(folder.rglob("*.py")) if path.read_text().strip()]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in found
    ]


def _commands() -> Iterator[str]:
    """What `sr3 --help` and `sr3 COMMAND --help` say, of `sr3 study` its own commands too."""

    def said(*arguments: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            cli.main([*arguments, "--help"])
        lines = [line.rstrip() for line in out.getvalue().strip("\n").splitlines()]
        return "\n".join(["```text", *lines, "```", ""])

    yield from ["# Commands", "", "As `sr3 --help` has them.", "", said()]
    for name in cli.COMMANDS:
        yield from [f"## {name}", "", said(name)]
        command = import_module(f"sr3_jax.cli.{name.replace('-', '_')}").run
        for part in getattr(command, "commands", {}):
            yield from [f"### {name} {part}", "", said(name, part)]


def _configs() -> Iterator[str]:
    """The files in configs/, each by the first paragraph of its docstring."""
    for name in CONFIGS:
        about = ast.get_docstring(ast.parse((ROOT / name).read_text())) or ""
        yield f"- [`{Path(name).stem}`](../{name}): " + " ".join(about.partition("\n\n")[0].split())


def _fields() -> Iterator[str]:
    """The config's fields, a table for each section."""
    before = ""
    for field in config_lib.fields():
        section = field.name.rpartition(".")[0] or "the whole"
        if section != before:
            yield from [
                "",
                f"### {section}",
                "",
                "| field | base | meaning |",
                "| --- | --- | --- |",
            ]
        before = section
        yield f"| `{field.name}` | `{field.value}` | {field.meaning.replace('|', chr(92) + '|')} |"
    yield from [
        "",
        "These may change when a run is resumed: "
        + ", ".join(f"`{name}`" for name in config_lib.MAY_CHANGE)
        + ".",
    ]
