"""Pictures that were sent are kept while a job that uses them is known, and no longer; others' are never removed."""

import asyncio
import base64
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from aiohttp import web
from asking import host_loads, png
from nag_pag_flux.lab.host import REPO
from nag_pag_flux.nagpag.service import server as service_routes
from nag_pag_flux.nagpag.service.server import pictures
from nag_pag_flux.nagpag.service.server.fetch import Refused
from nag_pag_flux.nagpag.service.server.store import _LOCK_WORDS, Store, remove_left_behind
from PIL import Image

DATA = f"data:;base64,{base64.b64encode(png()).decode()}"


def take(store, url=DATA, to=(64, 64)):
    load = host_loads(store.input_folder)
    return asyncio.run(pictures.take(url, to, store, load))["file"]


def kept(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_it_goes_with_the_last_job_that_uses_it(tmp_path):
    store = Store(tmp_path)
    name, other = take(store), take(store, to=(32, 32))
    assert take(store) == name == take(store, name) and kept(tmp_path) == sorted([name, other])
    for _ in range(2):
        store.release(name)
        assert (tmp_path / name).is_file()
    store.release(name)
    assert kept(tmp_path) == [other]
    with pytest.raises(Refused, match="no such picture"):
        take(store, name)
    assert take(store) == name  # sent again it is there again


@pytest.mark.parametrize("link, other", [("NAG-PAG", "NAG-PAG/{}"), ("a", "a/{}"), ("a.png", "a.png")])
def test_a_name_of_another_spelling_keeps_it_too(tmp_path, link, other):
    """By a link to the folder, named as it would be where case does not matter, or to the file itself."""
    store = Store(tmp_path)
    name = take(store)
    other = other.format(Path(name).name)
    (tmp_path / link).symlink_to(tmp_path / (name if link == other else "nag-pag"))
    assert take(store, other) == other
    store.release(name)
    assert (tmp_path / name).is_file()
    (tmp_path / link).unlink()  # what is gone by now counts as what it was
    store.release(other)
    assert not (tmp_path / name).exists()


def test_files_that_differ_in_case_alone_count_as_one_and_only_ours_is_removed(tmp_path):
    store = Store(tmp_path)
    name = take(store)
    other = f"nag-pag/{Path(name).name.upper()}"
    (tmp_path / other).write_bytes(png(seed=1))
    assert take(store, other) == other
    store.release(name)
    assert (tmp_path / name).is_file()
    store.release(other)
    assert [path.name for path in (tmp_path / "nag-pag").iterdir() if path.suffix != ".lock"] == [Path(other).name]


def test_what_was_refused_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    for url, to in [("data:,none", (64, 64)), (DATA, (4096, 16)), (f"data:;base64,{DATA[13:300]}", (64, 64))]:
        with pytest.raises(Refused):
            take(store, url, to)
    assert not list(tmp_path.rglob("*.p*"))


def test_pictures_of_others_stay(tmp_path):
    """One by name, one that someone put in the place of ours, and one in our folder that is named like ours."""
    store = Store(tmp_path)
    (tmp_path / "own.png").write_bytes(png())
    (tmp_path / "nag-pag").mkdir()
    mine = tmp_path / "nag-pag" / "0123456789abcdef0123456789abcdef.png"
    mine.write_bytes(png())
    replaced = take(store)
    (tmp_path / replaced).write_bytes(png(seed=1))
    for name in (take(store, "own.png"), take(store, f"nag-pag/{mine.name}"), replaced):
        store.release(name)
        assert (tmp_path / name).is_file()


def test_many_that_come_and_go_at_once_never_miss_their_file(tmp_path):
    """One content, used and released by several threads: while one uses it, it is there."""
    store, missing = Store(tmp_path), []
    name = store.name("0" * 64)

    def use():
        picture = Image.new("RGB", (8, 8))  # each its own: Pillow's save keeps its options on the picture itself
        for _ in range(100):
            with store.using(name):
                if not (tmp_path / name).is_file():
                    pictures._write(picture, store, tmp_path / name)
                missing.extend([] if (tmp_path / name).is_file() else [1])
            store.release(name)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missing and not kept(tmp_path)


def test_a_forgotten_job_releases_its_picture(tmp_path, monkeypatch):
    store = Store(tmp_path)
    names = [take(store, to=(16 * side, 16)) for side in range(1, 6)]
    from nag_pag_flux.nagpag.service.server.jobs import Jobs, QueuedPrompt

    monkeypatch.setattr("nag_pag_flux.nagpag.service.server.jobs.MOST_KEPT", 2)
    jobs = Jobs(lambda job: store.release(job.fit["file"]))

    async def add(number):
        job = QueuedPrompt(str(number), {}, "9", {"file": names[number]})
        job.ended.set()
        jobs.add(job)

    for number in range(len(names)):
        asyncio.run(add(number))
    assert list(jobs.known) == ["3", "4"] and kept(tmp_path) == sorted(names[3:])


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "nag-pag").write_text("a file")
    with pytest.raises(Refused, match="can't write"):
        take(Store(tmp_path))


# --- the next start ---

OTHER_SERVER = """
import sys
sys.path.insert(0, {repo!r})
from pathlib import Path
from PIL import Image
from nagpag.service.server import pictures
from nagpag.service.server.store import Store
store = Store(Path({folder!r}))
name = store.name("a" * 64)
with store.part(".png") as part:
    pictures._write(Image.new("RGB", (8, 8)), store, Path({folder!r}) / name)
    print(name, part.name, flush=True)
    sys.stdin.read()
"""


def test_what_a_server_that_is_gone_left_is_removed_and_what_one_still_uses_is_not(tmp_path):
    code = OTHER_SERVER.format(repo=str(REPO), folder=str(tmp_path))
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        name, part = other.stdout.readline().split()
        mark = name.removeprefix("nag-pag/").partition("-")[0]
        own = [f"nag-pag/{mark}-own.png", f"nag-pag/{'a' * 32}.png", f"nag-pag/12345678-{'a' * 32}.png", "own.png"]
        for one in own:
            (tmp_path / one).write_bytes(png())
        (tmp_path / "nag-pag" / "12345678.lock").write_text("of something else")
        remove_left_behind(tmp_path)
        assert kept(tmp_path) == sorted([*own, name, f"nag-pag/{part}"])
    finally:
        other.kill()  # as when the machine goes down
        other.wait()
    store = Store(tmp_path)
    here = take(store)
    remove_left_behind(tmp_path)
    assert kept(tmp_path) == sorted([*own, here])  # ours, which is alive, has a lock of its own
    assert {path.stem for path in tmp_path.rglob("*.lock")} == {store.mark, "12345678"}


def test_no_folder_is_nothing_to_remove(tmp_path):
    remove_left_behind(tmp_path)
    remove_left_behind(tmp_path / "none")
    (tmp_path / "nag-pag").write_text("a file")
    remove_left_behind(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["nag-pag"]


@pytest.fixture
def starting(monkeypatch):
    """The host as the pack is loaded: its server takes routes; these."""
    host_loads(None)  # the host's modules
    import server

    routes = web.RouteTableDef()
    monkeypatch.setattr(server.PromptServer, "instance", SimpleNamespace(routes=routes), raising=False)
    return routes


def test_a_start_clears_up_without_the_services_own_imports(tmp_path, monkeypatch, starting, caplog):
    import folder_paths

    left = tmp_path / "nag-pag" / "0123abcd.lock"
    left.parent.mkdir()
    left.write_bytes(_LOCK_WORDS)
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setitem(sys.modules, f"{service_routes.__name__}.host", None)  # importing it raises
    monkeypatch.delattr(service_routes, "host")
    service_routes.add_routes()
    assert len(starting) == len(service_routes.ROUTES) and not left.exists() and not caplog.records


@pytest.mark.parametrize("error", [ImportError("it moved"), AttributeError("it moved"), PermissionError("it moved")])
def test_a_start_that_can_not_clear_up_costs_neither_nodes_nor_routes(monkeypatch, starting, caplog, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(f"{service_routes.__name__}.store.remove_left_behind", fails)
    service_routes.add_routes()
    assert len(starting) == len(service_routes.ROUTES)
    (warning,) = caplog.messages
    assert warning.endswith(f"could not be removed: {type(error).__name__}: it moved")


# --- through the live server ---


def test_a_live_jobs_picture_stays_and_a_refused_prompts_goes(service):
    folder = service.server.base / "input"
    answer = service.post("image-to-image", image_url=DATA, num_inference_steps=1).json()
    assert (folder / answer["image"]["file"]).is_file()
    before = kept(folder)
    url = f"data:;base64,{base64.b64encode(png(seed=77)).decode()}"
    assert service.post("image-to-image", image_url=url, sampler_name="nope").status_code == 422
    assert kept(folder) == before
    job = requests.get(f"{service.url}/nagpag/jobs/{answer['prompt_id']}", timeout=30).json()
    again = service.raw("image-to-image", json=job["settings"])
    assert again.status_code == 200 and again.json()["image"]["file"] == answer["image"]["file"]
