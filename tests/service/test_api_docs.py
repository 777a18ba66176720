"""docs/api.md says what the service does, and its examples run."""

import re
import shlex
import subprocess
import sys

import pytest
from asking import SMALL, png
from nag_pag_flux.lab import host
from nag_pag_flux.lab.make import api_docs
from nag_pag_flux.nagpag.service import request as table
from nag_pag_flux.nagpag.service.server.problems import KINDS

PAGE = (host.REPO / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CURL = re.search(r"```\n(curl .*?)```", PAGE, re.DOTALL)[1]


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
    assert len(list(tmp_path.glob("*.png"))) == (0 if "photo" in example else 1)
    assert "photo" not in example or "images" in done.stdout


def test_the_curl_example_is_a_request_that_is_taken(service):
    """As curl would send it; without the large model's files it ends in their list."""
    words = shlex.split(CURL.replace("\\\n", ""))
    url, header, body = words[1], words[words.index("-H") + 1], words[words.index("-d") + 1]
    name, value = header.split(": ")
    assert url == "http://127.0.0.1:8188/nagpag/text-to-image"
    answer = service.raw(data=body, headers={name: value})
    assert answer.status_code == 409 and answer.json()["type"] == "urn:nag-pag:no-model-files"
