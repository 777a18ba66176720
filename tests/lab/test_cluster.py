"""The evidence on a real local Ray: the same files as without, and what goes wrong there is told."""

import dataclasses
import uuid

import pytest
from nag_pag_flux.lab.evidence import cluster, contenders, runs
from nag_pag_flux.lab.evidence.subjects import Subject


@pytest.fixture
def parts():
    """Of the shipped model in one step, under a name that nothing was kept by."""
    prompts = dataclasses.replace(runs.REPORTING, name=uuid.uuid4().hex, steps=1)
    asked = [contenders.plain(), contenders.nagpag(start_percent=0.0, depths=(8, 4))]
    made = runs.parts([Subject("shipped")], asked, prompts, runs.PART_SIZE)
    yield made
    for part in made:
        part.file.unlink(missing_ok=True)


def test_a_cluster_makes_the_same_files_and_says_what_it_could_not_make(parts, monkeypatch):
    packed = cluster.packed
    monkeypatch.setattr(cluster, "packed", lambda part: packed(part).replace(parts[1].file.name, "another.name"))
    with pytest.raises(cluster.NotMade, match=rf"make {parts[1].file.name}, not another.name"):
        runs.make_pictures(parts, ray="local")
    by_cluster = parts[0].file.read_bytes()
    assert not parts[1].file.exists()
    parts[0].file.unlink()
    runs.make_pictures(parts[:1])
    assert parts[0].file.read_bytes() == by_cluster


def test_a_cluster_that_is_not_there_is_told_in_one_line(parts, capfd):
    with pytest.raises(cluster.NotMade, match="cluster at 127.0.0.1:9"):
        runs.make_pictures(parts, ray="127.0.0.1:9")
    told = capfd.readouterr().err
    assert "evidence: no Ray cluster at 127.0.0.1:9: " in told and "Traceback" not in told
