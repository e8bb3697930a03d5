"""`make test-notebooks`: executes every notebook of colab/ from its first to its last cell.

    python tests/notebooks.py [NOTEBOOK …] [--write]

By default the sizes are reduced. --write keeps the outputs, at the sizes that the environment sets.
A notebook whose weights are not in the package is skipped, unless STAGES names others.
"""

import argparse
import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from sr3_jax import weights

COLAB = Path(__file__).parent.parent / "colab"
REDUCED = {"STEPS": "20", "SIZE": "32", "LIMIT": "4"}

NEEDED = {"sr3_generate": ("fashion-14", "fashion-14-28")}  # shipped weights, by notebook


def missing(path: Path) -> list[str]:
    """The weights that a notebook needs and the package lacks."""
    needed = () if os.environ.get("STAGES") else NEEDED.get(path.stem, ())
    return [name for name in needed if name not in weights.shipped()]


def execute(path: Path, write: bool) -> None:
    """Runs the notebook as a reader would, in its own folder; raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # what is installed stays as it is
        if cell.cell_type == "code" and cell.source.startswith("%pip"):
            cell.metadata["tags"], cell.source = ["skipped"], f"# {cell.source}"
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["WORKDIR"] = f"{scratch}/run"
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        folder = COLAB if path.stem == "sr3_train" else scratch  # that one uses configs/
        NotebookClient(
            notebook,
            timeout=3000,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    if write:
        for cell in notebook.cells:
            if cell.metadata.pop("tags", None):
                cell.source = cell.source.removeprefix("# ")
            cell.metadata.pop("execution", None)
            # Without the warnings of this machine's libraries, and its paths
            if cell.cell_type == "code":
                cell.outputs = [shrunk(one) for one in cell.outputs if one.get("name") != "stderr"]
                for one in cell.outputs:
                    if "text" in one:
                        one.text = one.text.replace(f"{scratch}/run", "runs/notebook")
        nbformat.write(notebook, path)


def shrunk(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output whose picture is a JPEG: a fifth of the size."""
    png = output.get("data", {}).pop("image/png", None)
    if png:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").save(
            buffer, "JPEG", quality=85
        )
        output.data["image/jpeg"] = base64.b64encode(buffer.getvalue()).decode()
    return output


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(COLAB.glob("*.ipynb")))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if not options.write:
        os.environ.update(
            {name: value for name, value in REDUCED.items() if name not in os.environ}
        )
    for path in options.notebooks:
        if names := missing(path):
            print(f"{path.name}: skipped, as the package has no weights {', '.join(names)}")
            continue
        try:
            execute(path, options.write)
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        print(f"{path.name}: every cell ran", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
