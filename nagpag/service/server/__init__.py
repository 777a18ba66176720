"""The service: text-to-image and image-to-image over HTTP, on ComfyUI's own server.

Importing this and registering the routes is light; what handles a request is imported with the first one.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _handlers() -> Any:
    from . import handlers

    return handlers


# Method, path, and what gives the function that answers.
ROUTES: tuple[tuple[str, str, Callable[[], Handler]], ...] = (
    ("POST", "/nagpag/text-to-image", lambda: _handlers().text_to_image),
    ("POST", "/nagpag/image-to-image", lambda: _handlers().image_to_image),
    ("GET", "/nagpag/jobs/{prompt_id}", lambda: _handlers().get_job),
    ("GET", "/nagpag/jobs/{prompt_id}/events", lambda: _handlers().job_events),
    ("DELETE", "/nagpag/jobs/{prompt_id}", lambda: _handlers().cancel_job),
    ("GET", "/nagpag/models", lambda: _handlers().get_models),
    ("GET", "/nagpag/schema", lambda: _handlers().get_schema),
)


def add_routes() -> None:
    """Put the service's routes on the running ComfyUI's server; without a server (a script, a test) do nothing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    if not importlib.util.find_spec("pydantic"):
        logging.warning("NAG-PAG: the HTTP service is off, as the package pydantic is missing; the nodes are there")
        return
    for method, path, handler in ROUTES:
        server.routes.route(method, path)(_later(handler))
    _remove_left_behind()


def _remove_left_behind() -> None:
    """Clear up after servers that are gone; where that fails, say so and go on: neither nodes nor routes need it."""
    try:
        from . import store

        # Not by way of `host`: what it imports beside this may have moved in another ComfyUI.
        store.remove_left_behind(Path(sys.modules["folder_paths"].get_input_directory()))
    except Exception as error:
        logging.warning(
            "NAG-PAG: pictures of earlier servers could not be removed: %s: %s", type(error).__name__, error
        )


def _later(handler: Callable[[], Handler]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler()(request)

    return answer
