"""Processes that find each other by the variables of a cluster, with JAX itself and no cluster."""

import os
import subprocess
import sys

import pytest

START = """
import jax
from sr3_jax.runtime import parallel
parallel.start()
print(jax.process_index(), jax.process_count(), jax.config.values["jax_cuda_visible_devices"])
"""


@pytest.fixture
def start():
    """start(variables) is a process that begins as `sr3` does, on one CPU device."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "OMPI_", "PMIX_", "SR3_"))
    }
    running = []

    def begin(variables):
        environment = kept | variables | {"JAX_NUM_CPU_DEVICES": "1"}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", START], env=environment, stdout=subprocess.PIPE, text=True
            )
        )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def printed(processes):
    return [process.communicate()[0].split() for process in processes]


def test_one_slurm_task_a_node_sees_all_gpus(start):
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
    }
    tasks = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert printed([start(slurm | tasks)]) == [["0", "1", "all"]]


def test_two_ranks_of_open_mpi_5_are_one_run_with_a_gpu_each(start):
    job = {
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "PMIX_NAMESPACE": f"prterun-{os.getpid()}@1",
    }
    ranks = [
        {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": rank} for rank in ("0", "1")
    ]
    assert printed([start(job | rank) for rank in ranks]) == [["0", "2", "0"], ["1", "2", "1"]]
