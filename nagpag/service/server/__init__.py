"""The service: text-to-image and image-to-image over HTTP, on ComfyUI's own server.

Importing this and registering the routes is light; what handles a request is imported with the first one.
"""

from __future__ import annotations

import importlib.util
import logging
import sys

from aiohttp import web

ROUTES = (
    ("POST", "/nagpag/text-to-image", "text_to_image"),
    ("POST", "/nagpag/image-to-image", "image_to_image"),
    ("GET", "/nagpag/jobs/{prompt_id}", "get_job"),
    ("GET", "/nagpag/jobs/{prompt_id}/events", "job_events"),
    ("DELETE", "/nagpag/jobs/{prompt_id}", "cancel_job"),
    ("GET", "/nagpag/models", "get_models"),
    ("GET", "/nagpag/schema", "get_schema"),
)


def add_routes() -> None:
    """Put the service's routes on the running ComfyUI's server; without a server (a script, a test) do nothing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    if not importlib.util.find_spec("pydantic"):
        logging.warning("NAG-PAG: the HTTP service is off, as the package pydantic is missing; the nodes are there")
        return
    for method, path, name in ROUTES:
        server.routes.route(method, path)(_later(name))


def _later(name: str):
    async def handler(request: web.Request) -> web.StreamResponse:
        from . import routes

        return await getattr(routes, name)(request)

    handler.__name__ = name
    return handler
