"""Waiting and not waiting, cancelling, many at once, failures."""

import concurrent.futures
import gc
import http.client
import json
import threading
import time

import aiohttp
import pytest
import requests
from asking import LONG, SMALL, png

STEPS = 20  # of a job that is watched
ENDED = ("done", "failed", "cancelled", "unknown")


def until(look, wanted, seconds=120):
    """Call `look` until `wanted` holds of what it gives."""
    deadline = time.monotonic() + seconds
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def status(service, prompt_id, *statuses):
    return until(lambda: service.job(prompt_id).json(), lambda job: job["status"] in statuses)


@pytest.fixture
def queued(service):
    """Queue without waiting; what is left is cancelled."""
    ids = []

    def queue(**body):
        answer = service.post(wait=False, **body)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["prompt_id"])
        return answer

    yield queue
    for prompt_id in ids:
        service.cancel(prompt_id)


def test_without_waiting(service, queued):
    answer = queued(seed=3)
    body = answer.json()
    assert answer.headers["Location"] == body["url"] == f"{service.url}/nagpag/jobs/{body['prompt_id']}"
    assert body["seed"] == 3
    job = status(service, body["prompt_id"], *ENDED)
    waited = service.post(seed=3).json()
    assert job["status"] == "done" and job["settings"] == waited["settings"]
    assert len(job["images"]) == 1 and requests.get(job["images"][0]["url"], timeout=30).ok


def test_a_running_job_tells_its_steps_and_only_it_is_cancelled(service, queued):
    running, behind, other = (queued(seed=seed, **LONG).json()["prompt_id"] for seed in (1, 2, 3))
    job = until(lambda: service.job(running).json(), lambda job: job.get("progress", {}).get("step", 0) >= 1)
    assert job["status"] == "running" and job["progress"]["steps"] == 200 and job["progress"]["step"] < 200
    assert [service.job(one).json()["position"] for one in (behind, other)] == [0, 1]
    gone = service.cancel(behind).json()  # waited: out of the queue, the running one goes on
    assert (gone["status"], gone["reason"]) == ("cancelled", "it was taken out of ComfyUI's queue")
    assert service.job(running).json()["status"] == "running" and service.queued() == [running, other]
    assert service.cancel(running).status_code in (200, 202)  # ran: interrupted, the next one begins
    assert status(service, running, *ENDED)["status"] == "cancelled"
    assert status(service, other, "running", *ENDED)["status"] == "running"
    assert service.cancel(other).json()["status"] in ("running", "cancelled")
    status(service, other, "cancelled")


def test_cancelling_as_it_begins_is_not_lost(service, queued):
    """ComfyUI clears an interrupt that comes between taking a prompt from the queue and running it."""
    for seed in range(5):
        prompt_id = queued(seed=seed, **LONG).json()["prompt_id"]
        service.cancel(prompt_id)
        assert status(service, prompt_id, *ENDED)["status"] == "cancelled"
    assert service.post(seed=1).status_code == 200


def test_cancelling_what_has_ended_changes_nothing(service, queued):
    prompt_id = queued(seed=4).json()["prompt_id"]
    done = status(service, prompt_id, *ENDED)
    answer = service.cancel(prompt_id)
    assert answer.status_code == 200 and answer.json() == done and done["status"] == "done"


def test_a_job_that_is_not_known(service):
    foreign = "00000000-0000-0000-0000-000000000000"
    for answer in (service.job(foreign), service.cancel(foreign), service.job(f"{foreign}/events")):
        assert answer.status_code == 404 and answer.json()["type"] == "urn:nag-pag:no-such-job"


def test_taken_out_of_the_queue_by_others(service, queued):
    queued(seed=1, **LONG)
    waiting = queued(seed=2, **LONG).json()["prompt_id"]
    requests.post(f"{service.url}/queue", json={"delete": [waiting]}, timeout=30)
    job = status(service, waiting, *ENDED)
    assert job["status"] == "cancelled" and "taken out by somebody, or it ran" in job["reason"]


def test_history_that_is_cleared_while_someone_waits(service):
    """How it ended is then not known; that is said, and not that somebody cancelled it."""
    stop = threading.Event()

    def clear():
        session = requests.Session()
        while not stop.wait(0.005):  # without a pause it would slow the server that it waits for
            session.post(f"{service.url}/history", json={"clear": True}, timeout=30)

    cleaner = threading.Thread(target=clear)
    cleaner.start()
    try:
        for seed in range(40):  # the history may be read in time
            answer = service.post(seed=seed, num_inference_steps=2)
            if answer.status_code != 200:
                break
        else:
            pytest.fail("each of forty was read before the history was cleared")
    finally:
        stop.set()
        cleaner.join()
    lost = answer.json()
    assert lost["type"] == "urn:nag-pag:unknown-end"
    assert "it ran and has ended" in lost["detail"] and "history was cleared" in lost["detail"]
    assert service.job(lost["prompt_id"]).json()["status"] == "unknown"


def test_cancelled_while_someone_waits(service):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(service.post, seed=5, **LONG)
        (prompt_id,) = until(service.queued, lambda ids: len(ids) == 1)
        until(lambda: service.job(prompt_id), lambda answer: answer.ok)
        service.cancel(prompt_id)
        answer = waiting.result(timeout=60)
    assert answer.status_code == 410 and answer.json()["prompt_id"] == prompt_id


def test_a_client_that_goes_away_cancels_nothing(service):
    body = json.dumps({"prompt": "left alone", **SMALL, "seed": 6})
    with service.holding() as before:
        client = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
        client.request("POST", "/nagpag/text-to-image", body, {"Content-Type": "application/json"})
        ids = until(service.queued, lambda ids: len({*ids, before}) == 2)
        client.close()
    (prompt_id,) = {*ids} - {before}
    assert status(service, prompt_id, *ENDED)["status"] == "done"


def test_twenty_at_once_are_all_answered_in_order(service):
    """Each is sent when the one before is queued, so that there is an order; all wait behind a long one."""

    def ask(number):
        answer = service.post(seed=100 + number, num_inference_steps=1)
        return answer.status_code, answer.json().get("seed"), answer.json().get("prompt_id")

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        with service.holding() as before:
            until(service.queued, lambda ids: ids == [before])
            asked = []
            for number in range(20):
                asked.append(pool.submit(ask, number))
                until(service.queued, lambda ids, wanted=number + 2: len(ids) == wanted)
            assert requests.get(f"{service.url}/nagpag/schema", timeout=60).ok  # meanwhile the loop is free
        done = [one.result(120) for one in asked]
    assert [(code, seed) for code, seed, _ in done] == [(200, seed) for seed in range(100, 120)]
    history = list(requests.get(f"{service.url}/history", timeout=30).json())
    ours = [prompt_id for prompt_id in history if prompt_id in {one for _, _, one in done}]
    assert ours == [prompt_id for _, _, prompt_id in done]


def test_events_tell_each_change_to_the_end(service, queued):
    with service.holding():
        prompt_id = queued(seed=11, num_inference_steps=STEPS, width=256, height=256).json()["prompt_id"]
        stream = requests.get(f"{service.url}/nagpag/jobs/{prompt_id}/events", stream=True, timeout=60)
    assert stream.headers["Content-Type"] == "text/event-stream"
    jobs = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith(b"data: ")]
    assert jobs[-1]["status"] == "done" and jobs[-1] == service.job(prompt_id).json()
    steps = [job["progress"]["step"] for job in jobs if "progress" in job]
    assert steps == sorted(steps) and any(0 < step < STEPS for step in steps)
    assert all(before != after for before, after in zip(jobs, jobs[1:], strict=False))


def test_the_callers_own_websocket_gets_the_progress(service):
    import asyncio

    async def ask():
        url = f"{service.url.replace('http', 'ws', 1)}/ws?clientId=my-own-client"
        body = {"prompt": "a cat", **SMALL, "seed": 21, "client_id": "my-own-client", "num_inference_steps": 3}
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as events:
            async with session.post(f"{service.url}/nagpag/text-to-image", json=body) as answer:
                prompt_id = (await answer.json())["prompt_id"]
            steps = []
            async for message in events:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = message.json()
                if event["data"].get("prompt_id") != prompt_id:
                    continue
                if event["type"] == "progress":
                    steps.append((event["data"]["value"], event["data"]["max"]))
                elif event["type"] == "executing" and event["data"]["node"] is None:
                    return steps
        return None

    steps = asyncio.run(ask())
    # The host leaves out a message that the next one overtakes.
    assert steps[-1] == (3, 3) and steps == sorted(set(steps)) and set(steps) <= {(1, 3), (2, 3), (3, 3)}


# --- what can't be done ---


def test_a_run_that_fails_names_node_and_message(service, queued):
    """The picture goes away while the job waits."""
    picture = service.server.base / "input" / "gone.png"
    picture.write_bytes(png())
    before = queued(seed=1, **LONG).json()["prompt_id"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(service.raw, "image-to-image", json={**SMALL, "prompt": "a", "image_url": "gone.png"})
        until(service.queued, lambda ids: len(ids) == 2)
        picture.unlink()
        service.cancel(before)
        answer = waiting.result(timeout=120)
    body = answer.json()
    assert answer.status_code == 500 and answer.headers["Content-Type"].startswith("application/problem+json")
    assert body["type"] == "urn:nag-pag:job-failed" and body["node_error"]["node"] == "LoadImage"
    assert body["node_error"]["message"] in body["detail"]
    assert "raceback" not in answer.text and ".py" not in answer.text
    job = service.job(body["prompt_id"]).json()
    assert job["status"] == "failed" and job["reason"] == body["detail"] and "images" not in job


@pytest.mark.parametrize("layer, words", [("25", "block 25 does not exist: this model has double blocks 0 to 18"),
                                          ("8, s99", "single block 99 does not exist")])  # fmt: skip
def test_a_block_that_the_model_lacks_is_refused_before_anything_runs(service, layer, words):
    answer = service.post(nag_pag_applied_layers=["3", layer])
    (error,) = answer.json()["errors"]
    assert answer.status_code == 400 and error["pointer"] == "#/nag_pag_applied_layers" and words in error["rule"]
    assert not service.queued()


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"nag_pag_applied_layers": ["2[9]"]}, '"2[9]": head 9 does not exist'),
        ({"nag_pag_reach_blocks": 99}, "reach_blocks 99 leads beyond the last block"),
    ],
)
def test_what_only_the_running_model_knows_is_the_callers_to_change(service, fields, words):
    answer = service.post(**fields)
    body = answer.json()
    assert answer.status_code == 422 and body["type"] == "urn:nag-pag:unfit" and body["detail"].count(words) == 1
    assert body["node_error"]["node"] == "NAGPAGGuidanceAdvanced"
    assert service.job(body["prompt_id"]).json()["status"] == "failed"


@pytest.mark.parametrize(
    "fields, node", [({"sampler_name": "nope"}, "KSampler"), ({"diffusion_model": "none.safetensors"}, "UNETLoader")]
)
def test_what_the_host_refuses(service, fields, node):
    answer = service.post(**fields)
    (error,) = answer.json()["node_errors"]
    assert answer.status_code == 422 and error["node"] == node
    assert next(iter(fields.values())) in error["errors"][0]["details"]
    assert not service.queued()


def test_missing_model_files_are_listed_with_folder_and_official_name(service):
    answer = service.raw(json={"prompt": "a cat"})
    assert answer.status_code == 409
    found = [(one["field"], one["folder"], one["file"]) for one in answer.json()["missing"]]
    assert found == [("t5xxl", "text_encoders", "t5xxl_fp16.safetensors"), ("vae", "vae", "ae.safetensors")]
    assert all(one["link"].endswith(one["file"]) for one in answer.json()["missing"])


def test_models_tell_what_would_be_picked(service):
    found = requests.get(f"{service.url}/nagpag/models", timeout=30).json()
    assert {kind: files["picked"] for kind, files in found.items()} == {
        "diffusion_model": "flux_small.safetensors",
        "clip_l": "clip_l_small.safetensors",
        "t5xxl": None,
        "vae": None,
    }
    assert (
        found["vae"]["installed"] == ["families/wan_vae.safetensors", "taef1"]
        and found["t5xxl"]["official"] == "t5xxl_fp16.safetensors"
    )


def test_what_is_remembered_of_a_job_is_what_its_answer_needs():
    """A thousand jobs are remembered: each is itself, its settings with their list, its state with its pictures."""
    from asking import host_loads

    host_loads(None)  # the host's modules
    from nag_pag_flux.nagpag.service.server.host import Snapshot
    from nag_pag_flux.nagpag.service.server.jobs import QueuedPrompt

    def remembered(number):
        image = {"filename": f"{number}.png", "subfolder": "", "type": "output"}
        events = [("execution_start", {"timestamp": 1}), ("execution_success", {"timestamp": 2})]
        history = {"prompt": [{}] * 99, "status": {"messages": events}, "outputs": {"9": {"images": [image]}}}
        job = QueuedPrompt(str(number), {"seed": number, "nag_pag_applied_layers": ["8"]}, "9")
        waiting = job.ended
        job.look(Snapshot(frozenset(), (), {job.prompt_id: history}))
        assert waiting.is_set() and job.ended.is_set() and job.state["status"] == "done"
        return job

    remembered(0)
    gc.collect()
    before = len(gc.get_objects())
    jobs = [remembered(number) for number in range(100)]
    gc.collect()
    assert (len(gc.get_objects()) - before) / len(jobs) < 7


def test_a_model_without_the_default_blocks_takes_auto_where_none_were_asked_for(service):
    """The shipped small FLUX has 8 double blocks; the defaults are blocks 8, 12 and 16."""
    shallow = {"diffusion_model": "trained/flux_shapes.safetensors", "negative_prompt": None}
    answer = service.post(**shallow, nag_pag_negative="softened", nag_pag_start_percent=0.0)
    assert answer.status_code == 200, answer.text
    assert answer.json()["settings"]["nag_pag_applied_layers"] == ["auto"]
    refused = service.post(**shallow, nag_pag_applied_layers=["transformer_blocks.8.attn"])
    assert refused.status_code == 400 and "double blocks 0 to 7" in refused.json()["errors"][0]["rule"]


def test_what_comfyui_counts_but_does_not_name_is_named(service):
    answer = service.post(sampler_name="eular")
    assert answer.status_code == 422 and "'eular' not in" in answer.json()["detail"]
    assert "valid are euler, " in answer.json()["detail"] and "dpmpp_2m" in answer.json()["detail"]
