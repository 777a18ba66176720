"""A sweep: many pictures from prompts, seeds and settings, drawn by one or many ComfyUIs, each picture once.

`plan` reads what is asked, `board` hands the jobs out, `workers` draw them (`cluster`: on Ray), `kept` has the folder.
`calibration` has the parts of Calibrate's search drawn the same way.
"""
