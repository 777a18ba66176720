"""A node's schema, made from its description in the one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..nagpag.inputs.kinds import Choice, Flag, Input, Node, Number, Socket, Text

_KNOWN = {
    "MODEL": io.Model,
    "CONDITIONING": io.Conditioning,
    "LATENT": io.Latent,
    "VAE": io.Vae,
    "IMAGE": io.Image,
    "STRING": io.String,
    "FLOAT": io.Float,
}
# Under this key the frontend is told what another input has to be for this one to do anything (web/idle_inputs.js).
NEEDS = "nag_pag_needs"
# And here what each preset sets (web/presets.js).
PRESETS = "nag_pag_presets"


def schema_of(node: Node, more: Mapping[str, dict[str, Any]] | None = None, **extra: Any) -> io.Schema:
    """The schema of a node.

    more: what else is said of a widget to the host, by its name; with options a text is one of these words, which the
    host alone knows. extra: what the host wants to know of the node beside, such as is_output_node.
    """
    return io.Schema(
        node_id=node.id,
        display_name=node.title,
        category="advanced/guidance",
        description=node.description,
        search_aliases=list(node.aliases),
        inputs=[_input(item, (more or {}).get(item.name, {})) for item in node.inputs],
        outputs=[_output(item) for item in node.outputs],
        **extra,
    )


def _input(item: Input, more: dict[str, Any]) -> io.Input:
    if isinstance(item, Socket):
        return _socket(item)
    # Optional, so that a graph sent through the API need not name what stays at its default.
    common: dict[str, Any] = {"default": item.default, "tooltip": item.does, "optional": True}
    common["advanced"] = item.advanced or None
    common |= more
    if item.needs:
        needs = [{"name": need.name, "options": list(need.options), "above": need.above} for need in item.needs]
        common["extra_dict"] = {**common.get("extra_dict", {}), NEEDS: needs}
    if isinstance(item, Choice):
        common["options"] = list(item.options)
    if "options" in common:
        return io.Combo.Input(item.name, **common)
    if isinstance(item, Flag):
        return io.Boolean.Input(item.name, **common)
    if isinstance(item, Number):
        return _number(item, common)
    assert isinstance(item, Text)
    return io.String.Input(item.name, multiline=item.lines, **common)


def _number(item: Number, common: dict[str, Any]) -> io.Input:
    bounds = {"min": item.minimum, "max": item.maximum, "step": item.step}
    if not item.whole:
        return io.Float.Input(item.name, round=False, **bounds, **common)
    # A seed is no seed that changes by itself: what was found is to be found again.
    control = {"control_after_generate": False} if item.name == "seed" else {}
    return io.Int.Input(item.name, **bounds, **control, **common)


def _socket(item: Socket) -> io.Input:
    if item.kind in _KNOWN:
        return _KNOWN[item.kind].Input(item.name, tooltip=item.does, optional=item.nullable)
    # Over a link alone: as a widget a curve would always have a value, and always win over schedule.
    return io.Custom(item.kind).Input(
        item.name, tooltip=item.does, optional=item.nullable, extra_dict={"forceInput": True}
    )


def _output(item: Socket) -> io.Output:
    name = None if item.name == item.kind else item.name
    return _KNOWN.get(item.kind, io.Custom(item.kind)).Output(display_name=name, tooltip=item.does)
