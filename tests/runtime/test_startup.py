"""What `sr3` settles before JAX is imported."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from etils import epath

from sr3_jax.runtime import startup

pytestmark = pytest.mark.fast


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """An environment with nothing of ours in it, restored afterwards."""
    for name in list(os.environ):
        if name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT", "TPU_", "XDG_")):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(startup.allocator, "keep_memory", lambda: None)
    yield os.environ
    assert dict(os.environ).keys() >= before.keys()


def test_compiled_programs_are_kept_in_the_users_cache_folder_within_a_bound(environment, tmp_path):
    startup.prepare()
    folder = Path(environment["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.parent == tmp_path / ".cache" / "sr3_jax" / "compiled"
    assert int(environment["JAX_COMPILATION_CACHE_MAX_SIZE"]) == 4 * 2**30


def test_each_kind_of_cpu_has_its_own_folder(environment, tmp_path, monkeypatch):
    """Of hosts that share a home, some may have instructions that others lack."""
    found = []
    for flags in ("sse2 avx2", "sse2 avx2 avx512f", "sse2 avx2"):
        monkeypatch.setattr(startup, "CPUINFO", tmp_path / "cpuinfo")
        startup.CPUINFO.write_text(
            f"model name\t: any\ncpu MHz\t: {time.time()}\nflags\t\t: {flags}\n"
        )
        found.append(startup.cache_folder())
    assert found[0] == found[2] != found[1]
    monkeypatch.setattr(startup, "CPUINFO", tmp_path / "none")
    assert startup.cache_folder() == startup.cache_folder() != found[0]


@pytest.mark.parametrize(
    ("device", "platforms", "kept"),
    [
        ("null", "", True),
        ("accel0", "", False),
        ("nvidia0", "", False),
        ("nvidiactl", "", True),
        ("nvidia0", "cpu", True),
        ("nvidia0", "cuda,cpu", False),
    ],
)
def test_memory_stays_with_the_process_only_where_the_cpu_computes(
    environment, tmp_path, monkeypatch, device, platforms, kept
):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / device).touch()
    monkeypatch.setattr(startup, "DEVICES", tmp_path / "dev")
    called = []
    monkeypatch.setattr(startup.allocator, "keep_memory", lambda: called.append(True))
    environment["JAX_PLATFORMS"] = platforms
    startup.prepare()
    assert called == [True] * kept


def test_the_cache_folder_follows_xdg(environment, tmp_path):
    environment["XDG_CACHE_HOME"] = str(tmp_path / "elsewhere")
    startup.prepare()
    assert environment["JAX_COMPILATION_CACHE_DIR"].startswith(str(tmp_path / "elsewhere"))


def test_what_the_user_has_set_stays(environment):
    chosen = {
        "JAX_COMPILATION_CACHE_DIR": "/mine",
        "TPU_WORKER_HOSTNAMES": "a,b",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }
    environment.update(chosen)
    startup.prepare()
    assert {name: environment[name] for name in chosen} == chosen
    assert "JAX_COMPILATION_CACHE_MAX_SIZE" not in environment


def test_a_home_that_cannot_be_written_to_means_no_cache(environment, tmp_path):
    (tmp_path / ".cache").write_text("a file")
    startup.prepare()
    assert "JAX_COMPILATION_CACHE_DIR" not in environment


@pytest.mark.parametrize(
    ("processes", "backend", "set_by_user", "shared"),
    [
        (4, "tpu", False, True),
        (1, "tpu", False, False),
        (4, "cpu", False, False),
        (4, "tpu", True, False),
    ],
)
def test_several_hosts_keep_what_they_compiled_in_the_workdir(
    environment, tmp_path, monkeypatch, processes, backend, set_by_user, shared
):
    if set_by_user:
        environment["JAX_COMPILATION_CACHE_DIR"] = "/mine"
    startup.prepare()
    changed = {}
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax.config, "update", lambda name, value: changed.update({name: value}))
    startup.share_programs(tmp_path / "run")
    expected = {
        "jax_compilation_cache_dir": str(tmp_path / "run" / "compiled"),
        "jax_compilation_cache_max_size": -1,
    }
    assert changed == (expected if shared else {})
    startup.share_programs(epath.Path("gs://bucket/run"))
    expected |= {
        "jax_compilation_cache_dir": "gs://bucket/run/compiled",
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    assert changed == (expected if shared else {})


COMPILES = """
from sr3_jax.runtime import startup
startup.prepare()
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("cache_hits")))
jax.jit(lambda x: jnp.sin(x) + 1).lower(1.0).compile()
print(sum(hits))
"""


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_COMP", "JAX_PERS"))
    }
    environment |= {
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    found = [
        subprocess.run(
            [sys.executable, "-c", COMPILES],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert [text.strip() for text in found] == ["0", "1"]


@pytest.mark.parametrize(
    "code",
    ["import sr3_jax", "import sys, sr3_jax.cli; sys.argv = ['sr3', '--help']; sr3_jax.cli.main()"],
)
def test_neither_import_nor_help_waits_for_jax(code):
    check = "; import sys; assert not {'jax', 'flax', 'orbax', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + check], capture_output=True, check=True)
