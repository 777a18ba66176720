"""NAG-PAG attention guidance for FLUX, a ComfyUI custom node pack.

Importing this imports neither torch nor ComfyUI; both come when the host asks for the nodes.
"""

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """ComfyUI's way in (schema V3)."""
    from .nagpag.service.server import add_routes
    from .nodes import NagPagExtension

    add_routes()
    return NagPagExtension()
