"""Files at any address: fetched once, kept as long as they stay the same."""

import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from sr3_jax.checkpoints import exported, names
from sr3_jax.checkpoints.checkpoint import CheckpointError
from sr3_jax.errors import UserError
from sr3_jax.runtime import fetch
from sr3_jax.runtime.atomic import replacing

pytestmark = pytest.mark.fast


class Site:
    """A web server: `files` by path, `tagged` says whether it tells contents apart."""

    def __init__(self):
        self.files, self.tagged, self.sent = {}, True, []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self, body=False):
                data = site.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                if site.tagged and data is not None:
                    self.send_header("ETag", f'"{hash(data)}"')
                self.end_headers()
                if body and data is not None:
                    site.sent.append(self.path)
                    self.wfile.write(data)

            def do_GET(self):
                self.do_HEAD(body=True)

        self.server = ThreadingHTTPServer(("localhost", 0), Handler)
        self.address = f"http://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site():
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sr3_jax"


def test_a_file_is_fetched_once_for_each_content(site, cache):
    site.files["/a/net.safetensors"] = b"one"
    address = f"{site.address}/a/net.safetensors"
    first = fetch.fetched(address, "x")
    assert first.read_bytes() == b"one"
    assert fetch.fetched(address, "x") == first
    assert len(site.sent) == 1
    site.files["/a/net.safetensors"] = b"two"
    second = fetch.fetched(address, "x")
    assert second.read_bytes() == b"two"
    assert [path for path in cache.rglob("*") if path.is_file()] == [second]
    assert stat.S_IMODE(second.parent.stat().st_mode) == 0o700


def test_what_another_process_is_writing_meanwhile_stays(site):
    site.files["/net.safetensors"] = b"one"
    address = f"{site.address}/net.safetensors"
    with replacing(fetch.fetched(address, "x")) as partial:
        site.files["/net.safetensors"] = b"two"
        assert fetch.fetched(address, "x").read_bytes() == b"two"
        assert partial.exists()


def test_where_contents_cannot_be_told_apart_a_file_is_fetched_each_time(site):
    site.tagged = False
    site.files["/net"] = b"one"
    assert fetch.fetched(f"{site.address}/net", "x").read_bytes() == b"one"
    site.files["/net"] = b"two"
    assert fetch.fetched(f"{site.address}/net", "x").read_bytes() == b"two"


def test_a_download_that_breaks_off_leaves_nothing(site, cache, monkeypatch):
    site.files["/net"] = b"one"
    system = fsspec.filesystem("http")

    def broken(place, to):
        Path(to).write_bytes(b"on")
        raise RuntimeError("the connection was closed")

    monkeypatch.setattr(system, "get_file", broken)
    with pytest.raises(UserError, match=r"/net cannot be read: the connection was closed"):
        fetch.fetched(f"{site.address}/net", "x")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_cache_without_room_is_a_sentence(site, cache):
    site.files["/net"] = b"one"
    cache.parent.write_text("no folder")
    with pytest.raises(UserError, match=r"cannot be copied to .*; let XDG_CACHE_HOME name a"):
        fetch.fetched(f"{site.address}/net", "x")


def test_a_network_is_loaded_from_any_address(site, tmp_path):
    file = tmp_path / "net.safetensors"
    exported.export(names.load_checkpoint("faces-16-64-regression"), file)
    site.files["/net.safetensors"] = file.read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe("/hub/model.safetensors", file.read_bytes())
    for address in (f"{site.address}/net.safetensors", "memory://hub"):
        checkpoint = names.load_checkpoint(address)
        assert checkpoint.name == address
        assert checkpoint.step == names.load_checkpoint(file).step
    memory.rm("/hub", recursive=True)


@pytest.mark.parametrize(
    ("address", "kind", "sentence"),
    [
        ("{site}/none", CheckpointError, "no checkpoint at 'http://localhost"),
        ("memory://none", CheckpointError, "no checkpoint at 'memory://none'"),
        ("nowhere://x", UserError, "nowhere://x cannot be reached: "),
        ("oci://x/y", UserError, "oci://x/y cannot be reached: Install .* to access"),
        ("http://localhost:1/x", UserError, "http://localhost:1/x cannot be read: "),
    ],
)
def test_an_address_without_a_network_is_a_sentence(site, address, kind, sentence):
    with pytest.raises(kind, match=sentence):
        names.load_checkpoint(address.format(site=site.address))


def test_schedules_of_an_address_are_written_to_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    file = names.schedules_file("hf://somebody/network/a.safetensors")
    assert file == tmp_path / "sr3_jax" / "hf_somebody_network_a.safetensors.schedules.json"
