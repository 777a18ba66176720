"""The command line: nagpag text-to-image --prompt "a lighthouse at dawn" --output lighthouse.png

Exit codes: 0 done, 2 bad input, 3 no server, 4 the job failed, 130 interrupted (what runs is cancelled).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...inputs import requests as table
from ...inputs import sweep as sweeps
from .. import checkpoint
from .. import request as asking
from . import BadRequest, Client, JobFailed, NoServer, Result, ServiceError, as_url
from .options import BAD_INPUT, BadInput, Parser, add_command, add_path, refuse_unknown
from .target import Target

NO_SERVER, FAILED, INTERRUPTED = 3, 4, 130
REPO = Path(__file__).resolve().parents[3]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status."""
    words = [_dashed(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    options, unknown = parser().parse_known_args(words)
    try:
        refuse_unknown(options, unknown)
        return options.run(options)
    except BadInput as error:
        return _failed(options, BAD_INPUT, str(error))
    except BadRequest as error:
        return _failed(options, BAD_INPUT, _refusal(error), error.problem)
    except NoServer as error:
        return _failed(options, NO_SERVER, str(error))
    except JobFailed as error:
        return _failed(options, FAILED, _refusal(error), error.problem)
    except KeyboardInterrupt as stop:
        return _failed(options, INTERRUPTED, str(stop) or "stopped")


def _dashed(word: str) -> str:
    """--num_inference_steps is taken as --num-inference-steps."""
    return re.sub(r"^--[a-z0-9_-]+", lambda match: match[0].replace("_", "-"), word)


def _failed(options: argparse.Namespace, code: int, text: str, problem: dict | None = None) -> int:
    if getattr(options, "json", False):
        print(json.dumps({"error": text, "exit_code": code, **({"problem": problem} if problem else {})}))
    print(f"nagpag: {text}", file=sys.stderr)
    return code


def _refusal(error: ServiceError) -> str:
    lines = [f"{one['pointer'][2:]}: {_of_field(one)}" for one in error.problem.get("errors") or []]
    lines += [f"{one['field']}: put {one['file']} into models/{one['folder']} ({one['link']})"
              for one in error.problem.get("missing") or []]  # fmt: skip
    return "\n  ".join([error.problem["title"], *lines]) if lines else str(error)


def _of_field(error: dict) -> str:
    if "value" not in error or "unknown" in error["rule"]:
        return error["rule"]
    return f"{error['value']!r} is not valid ({error['rule']})"


# --- the options ---


def parser() -> argparse.ArgumentParser:
    """All commands and options; those of the pictures are the request's fields."""
    whole = Parser(prog="nagpag", description="NAG-PAG guidance for FLUX, on a ComfyUI with this pack.")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (_, fields) in asking.ENDPOINTS.items():
        items = (*fields, table.OUTPUT, table.COMPARE, table.SERVER)
        command = add_command(commands, name, f"make pictures, {name.replace('-', ' ')}", _make, *items)
        command.set_defaults(endpoint=name)
    add_command(
        commands, "guide", "guide any graph: the node goes behind its model loader", _guide, *table.OPTIONS_OF_GRAPH
    )
    sweep = add_command(
        commands, "sweep", "draw prompts × seeds × settings on one ComfyUI or many", _sweep, *sweeps.OPTIONS_OF_COMMAND
    )
    add_path(sweep, sweeps.FILE)
    about = "look for the alpha that suits a model, or blocks and alpha, on one ComfyUI or many"
    add_path(add_command(commands, "calibrate", about, _calibrate, *sweeps.OPTIONS_OF_COMMAND), sweeps.SEARCH_FILE)
    add_command(commands, "models", "what the server has, and what would be picked", _models, table.SERVER)
    inspect = add_command(commands, "inspect", "what a checkpoint is, from its header alone", _inspect)
    add_path(inspect, table.CHECKPOINT)
    demo = add_command(commands, "demo", "run the repository's demo: a real ComfyUI with small models", _demo)
    add_path(demo, table.FOLDER)
    return whole


# --- pictures ---


def _make(options: argparse.Namespace) -> int:
    target = Target.of(options.output or table.OUTPUT.default)
    if options.compare:
        _need_pillow()
    request = _request(options)
    client = Client(options.server)
    if options.wait is False:
        return _queue_only(client, options, request)
    result = _run(client, options, request)
    told, files = _told(result), target.take(result.images)
    told["files"] = list(map(str, files))
    if options.compare:
        told["compare"] = str(_compare(client, options, request, result, target, files))
    if options.json:
        print(json.dumps(told))
    else:
        print(f"seed {result.seed}, {result.seconds:.1f} s")
        print("\n".join([*told["files"], *([told["compare"]] if options.compare else [])]))
    return 0


def _request(options: argparse.Namespace) -> dict[str, Any]:
    fields = asking.ENDPOINTS[options.endpoint][1]
    given = {field.name: value for field in fields if (value := getattr(options, field.name)) is not None}
    if "image_url" in given and (path := _local(given["image_url"])):
        given["image_url"] = as_url(path)
    return given


def _local(name: str) -> Path | None:
    try:
        return Path(name) if Path(name).is_file() else None
    except (OSError, ValueError):  # a data: URI is too long for a file's name
        return None


def _queue_only(client: Client, options: argparse.Namespace, request: dict) -> int:
    if options.compare:
        raise BadInput("--compare has to wait for the pictures; leave out --no-wait")
    prompt_id = client.submit(options.endpoint, request)
    told = {"prompt_id": prompt_id, "url": f"{client.server}/nagpag/jobs/{prompt_id}"}
    print(json.dumps(told) if options.json else f"queued as {prompt_id}; ask {told['url']}")
    return 0


def _run(client: Client, options: argparse.Namespace, request: dict, what: str = "") -> Result:
    with _bar(options, what) as progress:
        return client._make(options.endpoint, request, progress)


@contextlib.contextmanager
def _bar(options: argparse.Namespace, what: str) -> Iterator[Callable[[dict], None]]:
    """A progress bar that follows the job as the server tells it."""
    if options.json:
        yield lambda job: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        print("nagpag: no progress bar, as the package tqdm is missing", file=sys.stderr)
        yield lambda job: None
        return
    bar: Any = None  # begins with the job, so that nothing is drawn where there is none

    def show(job: dict) -> None:
        nonlocal bar
        before = f", {job['position']} before it" if job.get("position") else ""
        bar = tqdm(unit="step") if bar is None else bar
        bar.set_description_str(f"{what or options.endpoint}: {job['status']}{before}", refresh=False)
        if steps := job.get("progress"):
            bar.total, bar.n = steps["steps"], steps["step"]
        if job["status"] == "done":
            bar.total = bar.n = job["settings"]["num_inference_steps"]
        bar.refresh()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def _told(result: Result) -> dict[str, Any]:
    told = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    told["images"] = [
        {"filename": image.filename, "subfolder": image.subfolder, "type": image.type, "url": image.url}
        for image in result.images
    ]
    return told


def _compare(
    client: Client, options: argparse.Namespace, request: dict, guided: Result, target: Target, files: list[Path]
) -> Path:
    from . import compare

    plain = _run(client, options, {**request, "seed": guided.seed, "nag_pag_scale": 0.0}, "unguided")
    scale = guided.settings["nag_pag_scale"]
    rows = [
        {f"unguided, seed {guided.seed}": off.data(), f"NAG-PAG, scale {scale:g}": file.read_bytes()}
        for off, file in zip(plain.images, files, strict=True)
    ]
    sheet = compare.side_by_side(rows)
    return target.write_with(lambda path: compare.save(sheet, path), f"{files[0].stem.rstrip('_')}_compare.png")


def _need_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise BadInput("--compare needs Pillow: pip install Pillow") from None


# --- the other commands ---


def _guide(options: argparse.Namespace) -> int:
    from . import guide

    told = guide.guide(options)
    print(json.dumps(told) if options.json else guide.words(told))
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from .sweep import command

    told = command.sweep(options.file, command.Where(options.output, options.server or [], options.ray, options.json))
    print(json.dumps(told) if options.json else command.words(told))
    return FAILED if told["failed"] else 0


def _calibrate(options: argparse.Namespace) -> int:
    from .sweep import calibration, command

    where = command.Where(options.output, options.server or [], options.ray, options.json)
    told = command.calibrate(options.file, where)
    print(json.dumps(told) if options.json else calibration.words(told))
    return FAILED if told["failed"] else 0


def _models(options: argparse.Namespace) -> int:
    found = Client(options.server).models()
    if options.json:
        print(json.dumps(found))
        return 0
    for kind, files in found.items():
        print(f"{kind} (models/{files['folder']}): {files['picked'] or 'none found'}")
        if not files["picked"]:
            print(f"  the official file is {files['official']}: {files['link']}")
        for name in files["installed"]:
            if name != files["picked"]:
                print(f"  also there: {name}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    try:
        found = checkpoint.inspect(options.checkpoint)
    except OSError as error:
        raise BadInput(f"{options.checkpoint}: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(str(error)) from None
    if options.json:
        print(json.dumps(dataclasses.asdict(found)))
        return 0
    print(f"family         {found.family or 'none that this pack knows'}")
    if found.double_blocks:
        print(f"double blocks  {found.double_blocks}\nsingle blocks  {found.single_blocks}")
        print(f"hidden size    {found.hidden_size}")
    print(f"parameters     {found.parameters / 1e9:.3g} billion, {', '.join(found.dtypes)}")
    if found.guided:
        print(f"auto           {', '.join(map(str, found.auto))}")
    elif found.family is None:
        print("guidance       with a negative prompt, if it is a diffusion model (NAG-PAG Inspect Model says more)")
    else:
        print("guidance       not for this file")
    return 0


def _demo(options: argparse.Namespace) -> int:
    host = REPO / "lab" / "host.py"
    if not host.is_file():
        raise BadInput("the demo is part of the repository, not of the installed package: clone it, then make demo")
    command = [sys.executable, str(host), "run", "--", str(REPO / "lab" / "run.py"), "demo"]
    return subprocess.call([*command, *([str(options.folder)] if options.folder else [])])
