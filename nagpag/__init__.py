"""NAG-PAG attention guidance for FLUX: the library beneath the ComfyUI nodes.

- The method: `guidance`, `perturbation` and `measure` are the maths (torch, never ComfyUI); `blocks`, `schedule`,
  `candidates`, `settings` and `inputs` say what can be asked (standard library alone); `patch` hooks both into ComfyUI.
- `diagnostics` shows what guidance did on a model, `calibration` finds what suits one, `comparison` shows settings side
  by side; `kept` is what these two drew lately.
- `service` makes pictures over HTTP and from a command line; `client` is its Python client by a short name.

Importing this imports nothing else.
"""
