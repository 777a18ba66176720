"""NAG-PAG attention guidance for FLUX: the library beneath the ComfyUI nodes.

`guidance` and `perturbation` hold the maths (torch only), `blocks`, `schedule` and
`config` say what to do (standard library only), `record` and `plot` show what it did, `patch` hooks it into ComfyUI.
"""
