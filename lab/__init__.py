"""The laboratory: a real ComfyUI, small models of the real architecture, the demo. Not needed to use the nodes."""
