"""A server that listens on several addresses, fetches nothing, and was started where another has left pictures."""

import requests
from asking import Service
from nag_pag_flux.lab.server import running_server
from nag_pag_flux.nagpag.service.server import store


def test_it_answers_on_each_of_its_addresses_and_fetching_is_off(monkeypatch, tmp_path):
    monkeypatch.setenv("NAGPAG_FETCH", "off")
    (tmp_path / "nag-pag").mkdir()
    (tmp_path / "nag-pag" / "0a1b2c3d.lock").write_bytes(store._LOCK_WORDS)
    for name in ("0a1b2c3d-x.part.png", "own.png"):
        (tmp_path / "nag-pag" / name).touch()
    options = ("--listen", "127.0.0.1,127.0.0.3", "--max-upload-size", "0.01", "--input-directory", str(tmp_path))
    with running_server(*options) as server:
        assert [path.name for path in (tmp_path / "nag-pag").iterdir()] == ["own.png"]
        there = server.url.replace("127.0.0.1", "127.0.0.3")
        for url in (server.url, there):
            answer = requests.post(
                f"{url}/nagpag/text-to-image", json={"prompt": "a", "vae": "a", "t5xxl": "b"}, timeout=60
            )
            assert answer.status_code == 422 and answer.json()["node_errors"], (
                answer.text
            )  # it reached ComfyUI's /prompt
        answer = Service(server).post("image-to-image", image_url="https://example.org/a.png")
        assert answer.status_code == 403 and answer.json()["type"] == "urn:nag-pag:fetching-off"
        # ComfyUI's own limit is for its uploads and prompts; ours is told in the docs.
        assert Service(server).post("image-to-image", image_url="data:," + "x" * 20_000).status_code == 400
