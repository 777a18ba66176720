"""The README's table of inputs is the table the node is made from."""

from nag_pag_flux.lab import host
from nag_pag_flux.nagpag import config


def row(item):
    if isinstance(item, config.Number):
        values = f"{item.minimum:g} to {item.maximum:g}"
    elif isinstance(item, config.Flag):
        values = "true, false"
    else:
        values = ", ".join(item.options) if isinstance(item, config.Choice) else "block spec"
    advanced = " *(advanced)*" if item.advanced else ""
    return f"| {item.name}{advanced} | {item.default} | {values} | {item.tooltip} |"


def test_every_input_has_its_row():
    text = (host.REPO / "README.md").read_text()
    for item in config.INPUTS:
        assert row(item) in text, item.name
    assert f"| {config.CURVE} | none | CURVE | {config.CURVE_TOOLTIP} |" in text
