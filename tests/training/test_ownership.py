"""One workdir, one run; data that have changed are told."""

import subprocess
import sys

import pytest

from sr3_jax.data.folder import Folder
from sr3_jax.errors import UserError
from sr3_jax.training import ownership

HOLD = """
import sys
from pathlib import Path
from sr3_jax.training import ownership
with ownership.claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_workdir_is_of_one_run_which_is_named_and_a_dead_owner_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"is being trained by process {owner.pid} on "),
            ownership.claimed(tmp_path),
        ):
            pass
        owner.kill()
    with ownership.claimed(tmp_path):
        assert (tmp_path / ".owner").exists()
    assert not (tmp_path / ".owner").exists()


@pytest.mark.fast
def test_data_that_are_others_than_at_the_beginning_are_told(tmp_path):
    said = []

    def source(*names):
        return Folder(tmp_path, list(names), 3)

    ownership.compare_data(tmp_path, source("a", "b"), said.append)
    ownership.compare_data(tmp_path, source("a", "b"), said.append)
    assert not said
    ownership.compare_data(tmp_path, source("a", "c"), said.append)
    ownership.compare_data(tmp_path, source("a", "b", "c"), said.append)
    assert "2 images (" in said[0]
    assert ") then, 3 (" in said[1]
