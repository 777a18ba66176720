"""NAG-PAG attention guidance for FLUX: the library beneath the ComfyUI nodes.

`guidance` and `perturbation` hold the maths (torch only), `blocks`, `schedule` and
`config` say what to do (standard library only), `patch` hooks it into ComfyUI.
"""
