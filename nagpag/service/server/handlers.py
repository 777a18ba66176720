"""The handlers: read the request, queue a ComfyUI prompt, tell how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import secrets
import urllib.parse
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web
from yarl import URL

from ...inputs import requests as table
from ...inputs.guidance import ADVANCED
from .. import request as asking
from ..graphs import node_of, saved_anew
from . import body, graph, host, openapi, picking, pictures, schema
from .fetch import FetchingOff, Refused
from .held import Busy, Held, Share
from .jobs import LOOK_SECONDS, Jobs, QueuedPrompt
from .problems import MOST_SHOWN, Problem, bad_fields, field_error
from .store import Store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SMALL_BODY = 2**12  # larger ones are read in a thread, so that the loop is not held up
LARGEST_DRAWN_SEED = 2**50 - 1  # what JavaScript keeps exact, as the graph may be opened in a browser
MOST_CHOICES = 100  # that an error lists
SIGN_OF_LIFE_SECONDS = 10.0  # on an event stream where nothing changes
CANCEL_SECONDS = 2.0  # how long DELETE waits for a running job to stop before it answers that it is stopping

held = Held()
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")
_in_turn = asyncio.Lock()


def _tells_problems(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def wrapped(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except Busy as busy:
            return Problem("busy", str(busy)).response()

    return wrapped


# --- making pictures ---


@_tells_problems
async def text_to_image(request: web.Request) -> web.StreamResponse:
    """POST /nagpag/text-to-image."""
    return await _make(request, "text-to-image")


@_tells_problems
async def image_to_image(request: web.Request) -> web.StreamResponse:
    """POST /nagpag/image-to-image."""
    return await _make(request, "image-to-image")


@functools.cache
def _store() -> Store:
    return Store(host.input_folder())


def _release(fit: dict | None) -> None:
    if fit:
        _store().release(fit["file"])


jobs = Jobs(lambda job: _release(job.fit))


async def _make(request: web.Request, endpoint: str) -> web.Response:
    origin = _origin(request)  # before anything is queued: who asks has to get the job's URL
    with held.share() as share:
        asked = _with_seed(await _read(request, endpoint, share))
        asked, fit = await _with_picture(asked, share)
    try:
        job = await _queued(request, endpoint, asked, fit)
    except BaseException:
        _release(fit)
        raise
    if not asked.wait:
        accepted = schema.Accepted(prompt_id=job.prompt_id, seed=job.settings["seed"], url=_job_url(origin, job))
        return _json(accepted, 202, {"Location": accepted.url})
    await job.ended.wait()
    return _answer(origin, job)


async def _queued(request: web.Request, endpoint: str, asked: schema.Request, fit: dict | None) -> QueuedPrompt:
    """The request's job, queued and known."""
    async with _in_turn:  # first come, first queued
        asked = asked.model_copy(update=await asyncio.to_thread(picking.pick_all, asked))
        asked = await asyncio.to_thread(picking.fit_blocks, asked)
        prompt = saved_anew(graph.build(endpoint, asked))
        prompt_id = await _queue(request, prompt, asked.client_id)
        job = QueuedPrompt(prompt_id, _settings(asked, prompt), graph.sampler_id(prompt), fit)
        jobs.add(job)
    return job


def _with_seed(asked: schema.Request) -> schema.Request:
    if asked.seed is not None:
        return asked
    return asked.model_copy(update={table.SEED.name: secrets.randbelow(LARGEST_DRAWN_SEED + 1)})


async def _read(request: web.Request, endpoint: str, share: Share) -> schema.Request:
    sent = await body.read(request, asking.MOST_BODY[endpoint], share)
    if len(sent) <= SMALL_BODY:
        return schema.validate(endpoint, body.parse(sent))
    return await asyncio.to_thread(lambda: schema.validate(endpoint, body.parse(sent)))


async def _with_picture(asked: schema.Request, share: Share) -> tuple[schema.Request, dict | None]:
    """The request with its picture's name in the input folder, in use from now on, and what is made of the picture."""
    place = table.IMAGE_URL.name
    if place not in type(asked).model_fields:
        return asked, None
    url, to = asked.image_url, (asked.width, asked.height)
    try:
        fit = await pictures.take(url, to, _store(), host.load_image, share)
    except FetchingOff as error:
        raise Problem("fetching-off", str(error)) from None
    except Refused as error:
        raise bad_fields([field_error(place, str(error), url)]) from None
    return asked.model_copy(update={place: fit["file"]}), fit


def _settings(asked: schema.Request, prompt: graph.Graph) -> dict:
    """What was used; the strength is the graph's, which has a least one."""
    used = asked.model_dump(exclude={item.name for item in asking.OF_THE_ANSWER})
    if table.STRENGTH.name in used:
        used[table.STRENGTH.name] = node_of(prompt, "KSampler")["inputs"]["denoise"]
    return used


# --- ComfyUI's own /prompt ---


async def _queue(request: web.Request, prompt: graph.Graph, client_id: str | None) -> str:
    """Queue the prompt as any client does; its id."""
    asked = {"prompt": prompt} if client_id is None else {"prompt": prompt, "client_id": client_id}
    try:
        async with (
            aiohttp.ClientSession() as session,
            # The certificate is for the server's name, and this address is our own.
            session.post(
                f"{_own_address(request)}/prompt", json=asked, headers=_passed_on(request), ssl=False
            ) as answer,
        ):
            found = await answer.json(content_type=None)
    except (aiohttp.ClientError, ValueError) as error:  # such as a guard before ComfyUI that answers with a page
        raise Problem("host-refused", f"ComfyUI's own /prompt gave no usable answer: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise Problem("host-refused", f"ComfyUI's own /prompt gave no usable answer: a {type(found).__name__}")
    if answer.status == 200 and "prompt_id" in found and not found.get("node_errors"):
        return found["prompt_id"]
    raise _host_refusal(found)


def _own_address(request: web.Request) -> str:
    """Where this very request came in, whatever --listen, --port and TLS say."""
    transport = request.transport
    assert transport is not None
    address, port = transport.get_extra_info("sockname")[:2]
    scheme = "https" if transport.get_extra_info("sslcontext") else "http"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _passed_on(request: web.Request) -> dict[str, str]:
    """What packs that guard the server ask of each request."""
    return {
        name: request.headers[name] for name in ("Authorization", "Cookie", "Comfy-User") if name in request.headers
    }


def _with_choices(kind: str, error: dict) -> str:
    """ComfyUI's details of what is wrong with an input, with what is valid where it names but how many those are."""
    name = (error.get("extra_info") or {}).get("input_name")
    if error.get("type") != "value_not_in_list" or "list of length" not in error["details"] or name is None:
        return error["details"]
    valid = host.choices(kind, name)
    more = f" and {len(valid) - MOST_CHOICES} more" if len(valid) > MOST_CHOICES else ""
    return f"{error['details']}; valid are {', '.join(valid[:MOST_CHOICES])}{more}" if valid else error["details"]


def _host_refusal(found: dict) -> Problem:
    nodes = [
        {
            "node_id": number,
            "node": node["class_type"],
            "errors": [
                {"message": error["message"], "details": _with_choices(node["class_type"], error)}
                for error in node["errors"]
            ],
        }
        for number, node in (found.get("node_errors") or {}).items()
    ]
    lines = [f"{node['node']}: {error['message']} ({error['details']})" for node in nodes for error in node["errors"]]
    error = found.get("error")
    reason = error.get("message") if isinstance(error, dict) else error
    detail = "; ".join(lines) or str(reason or "no reason was given")
    return Problem("host-refused", detail, node_errors=nodes)


# --- jobs ---


def _find(request: web.Request) -> QueuedPrompt:
    prompt_id = request.match_info["prompt_id"]
    job = jobs.known.get(prompt_id)
    if job is None:
        raise Problem("no-such-job", "no job with this prompt_id was queued through /nagpag since the server started")
    jobs.look()
    return job


@_tells_problems
async def get_job(request: web.Request) -> web.StreamResponse:
    """GET /nagpag/jobs/{prompt_id}."""
    return _json(_told(_origin(request), _find(request)))


@_tells_problems
async def cancel_job(request: web.Request) -> web.StreamResponse:
    """DELETE /nagpag/jobs/{prompt_id}: 200 where it has ended, 202 where it is still stopping."""
    origin, job = _origin(request), _find(request)
    jobs.cancel(job)
    try:
        await asyncio.wait_for(job.ended.wait(), CANCEL_SECONDS)
    except TimeoutError:
        return _json(_told(origin, job), 202)
    return _json(_told(origin, job))


@_tells_problems
async def job_events(request: web.Request) -> web.StreamResponse:
    """GET /nagpag/jobs/{prompt_id}/events: the job as server-sent events, each time it changes, to its end."""
    origin, job, sent, quiet = _origin(request), _find(request), None, 0.0
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await stream.prepare(request)
    try:
        while True:
            ended, told = job.ended.is_set(), _told(origin, job).model_dump_json(exclude_none=True)
            if told != sent:
                await stream.write(f"data: {told}\n\n".encode())
                sent, quiet = told, 0.0
            elif quiet > SIGN_OF_LIFE_SECONDS:
                await stream.write(b": still there\n\n")
                quiet = 0.0
            if ended:
                break
            await asyncio.sleep(LOOK_SECONDS)
            quiet += LOOK_SECONDS
    except ConnectionResetError:
        pass  # who asked went away; the job goes on
    return stream


def _answer(origin: str, job: QueuedPrompt) -> web.Response:
    status = job.state["status"]
    if status == "failed":
        raise _failure(job)
    if status in ("cancelled", "unknown"):
        kind = "cancelled" if status == "cancelled" else "unknown-end"
        raise Problem(kind, job.state["reason"], prompt_id=job.prompt_id)
    told = _told(origin, job).model_dump(exclude_none=True)
    return _json(schema.Answer(**{name: told[name] for name in schema.Answer.model_fields if name in told}))


def _failure(job: QueuedPrompt) -> Problem:
    """Why the run failed: what the guidance node can't do on this model is the caller's to change."""
    error = job.state["error"]
    kind, _, words = error["message"].partition(": ")
    if error["node"] == ADVANCED.id and kind == "ValueError":
        return Problem("unfit", words, prompt_id=job.prompt_id, node_error=error)
    return Problem("job-failed", job.state["reason"], prompt_id=job.prompt_id, node_error=error)


def _told(origin: str, job: QueuedPrompt) -> schema.Job:
    state = {name: value for name, value in job.state.items() if name != "images"}
    ended = {"settings": job.settings, "image": job.fit} if state["status"] == "done" else {}
    images = [_image(origin, image) for image in job.state["images"]] if "images" in job.state else None
    url, seed = _job_url(origin, job), job.settings["seed"]
    told = {"prompt_id": job.prompt_id, "seed": seed, "url": url, "images": images, **ended, **state}
    return schema.Job.model_validate(told)


def _image(origin: str, image: dict) -> schema.Image:
    where = {name: image[name] for name in ("filename", "subfolder", "type")}
    return schema.Image(**where, url=f"{origin}/view?{urllib.parse.urlencode(where)}")


def _job_url(origin: str, job: QueuedPrompt) -> str:
    return f"{origin}/nagpag/jobs/{job.prompt_id}"


def _origin(request: web.Request) -> str:
    """Where the one who asks found us, for the URLs of the answer."""
    found = request.headers.get("Host")
    if found is None:  # HTTP/1.0
        return _own_address(request)
    if _HOST.fullmatch(found):
        with contextlib.suppress(ValueError):
            return str(URL.build(scheme=request.scheme, authority=found).origin())
    raise Problem("bad-host", f"{found[:MOST_SHOWN]!r} is no host, or a host and a port")


def _json(model: schema.BaseModel, status: int = 200, headers: dict | None = None) -> web.Response:
    text = model.model_dump_json(exclude_none=True)
    return web.Response(text=text, status=status, content_type="application/json", headers=headers)


# --- what there is ---


async def get_models(request: web.Request) -> web.StreamResponse:
    """GET /nagpag/models: for each kind of file what would be picked and what is installed."""
    return web.json_response(await asyncio.to_thread(picking.overview))


async def get_schema(request: web.Request) -> web.StreamResponse:
    """GET /nagpag/schema: the OpenAPI document of the service."""
    return web.json_response(openapi.document())
