"""The laboratory: a real ComfyUI, small models of the real architecture, the demo. Not needed to use the nodes.

Here lies only what gets and runs a host. `toy` is the small FLUX, `evidence` what guidance does on it, `cost` what it
takes, `make` what writes files of the repo. It may import all of the pack; nothing in the pack imports it.
"""
