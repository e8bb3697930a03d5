"""No console and no reader that goes away ends the work."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

PRINT = """
import os, sys
from sr3_jax.runtime import console
console.prepare()
console.prepare()  # once more changes nothing
print("→ é", os.fsdecode(b"name-\\xff.png"))
for i in range(20_000):
    print("line", i)
sys.stdout.flush()
print("done", file=sys.stderr)
sys.exit(3)
"""


def run(read_all=True, **environment):
    with subprocess.Popen(
        [sys.executable, "-c", PRINT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    ) as process:
        out = process.stdout.read() if read_all else process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, out, said


@pytest.mark.parametrize(
    ("encoding", "first"),
    [
        ("utf-8", "→ é ".encode() + b"name-\xff.png"),
        ("latin-1", b"? \xe9 name-\xff.png"),
        ("ascii", b"? ? name-\xff.png"),
    ],
)
def test_letters_that_a_console_does_not_have_are_marked_and_names_keep_their_bytes(
    encoding, first
):
    code, out, said = run(PYTHONIOENCODING=encoding)
    assert (code, said.split()) == (3, [b"done"])
    assert out.splitlines()[0] == first


def test_a_reader_that_goes_away_ends_nothing_and_the_exit_code_is_the_works():
    code, _, said = run(read_all=False)
    assert (code, said.split()) == (3, [b"done"])
