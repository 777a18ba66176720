"""docs/api.md says what the service does, and its examples run."""

import re
import shlex
import subprocess
import sys

import pytest
import requests
from asking import SMALL, png
from nag_pag_flux.lab import host
from nag_pag_flux.lab.make import api_docs
from nag_pag_flux.nagpag.service import request as table
from nag_pag_flux.nagpag.service.server.problems import KINDS

PAGE = (host.REPO / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CURLS = re.findall(r"```\n(curl .*?)```", PAGE, re.DOTALL)


def test_the_table_of_fields_is_the_one_table():
    assert api_docs.page() == PAGE, "out of date: python3 lab/host.py run -- lab/run.py make_api_docs"


def test_every_problem_and_limit_is_told():
    for kind, (status, _) in KINDS.items():
        assert f"| {status} | `urn:nag-pag:{kind}` |" in PAGE
    for size in table.MOST_BODY.values():
        assert f"{size // 2**20} MiB" in PAGE


def small(example, service):
    """The example against the live server, on the small models."""
    example = example.replace("http://127.0.0.1:8188", service.url)
    return re.sub(r'\{"prompt": ', lambda found: f"{{**{SMALL}, {found[0][1:]}", example)


@pytest.mark.parametrize("example", EXAMPLES, ids=["text", "picture", "client"])
def test_the_python_examples_run(service, tmp_path, example):
    (tmp_path / "photo.jpg").write_bytes(png())
    code = small(example, service).replace("seed=7,", f"seed=7, **{SMALL},")
    assert "8188" not in code and "clip_l_small" in code
    code = f"import sys; sys.path.insert(0, {str(host.REPO)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_the_page_begins_with_the_two_bodies_that_most_people_send():
    first, second = re.findall(r"\*\*(.+?)\*\*.*?```\ncurl.*?```\n\n```python\n", PAGE, re.DOTALL)
    assert (first, second) == ("Text to image", "Image to image")
    assert PAGE.index("```python", PAGE.index(f"**{second}**")) < PAGE.index("\n## ")
    assert '"negative_prompt": ' in CURLS[0] and '"image_url": ' in CURLS[1]


@pytest.mark.parametrize("curl, kind", [*zip(CURLS, ("text", "image"), strict=True)], ids=["text", "image"])
def test_the_curl_examples_are_requests_that_are_taken(service, curl, kind):
    """As curl would send them; without the large model's files they end in their list."""
    uploaded = {"image": ("photo.jpg", png()), "overwrite": (None, "true")}
    requests.post(f"{service.url}/upload/image", files=uploaded, timeout=30).raise_for_status()
    words = shlex.split(curl.replace("\\\n", ""))
    url, header, body = words[1], words[words.index("-H") + 1], words[words.index("-d") + 1]
    name, value = header.split(": ")
    path = f"{kind}-to-image"
    assert url == f"http://127.0.0.1:8188/nagpag/{path}"
    answer = service.raw(path, data=body, headers={name: value})
    assert answer.status_code == 409 and answer.json()["type"] == "urn:nag-pag:no-model-files"
