"""What guidance did and could do on a model: inspect before, record while it samples, plot after.

May import the method beside it (maths, what can be asked, `patch`) and ComfyUI; matplotlib in `plot` alone. Never the
service, nor calibration.
"""
