"""What guidance does, measured on the small FLUX.

`contenders` are compared on pictures that `runs` samples and keeps (`sampling`), by `judges` that know nothing of each
other; `gains` are what they say, with errors. Settings were chosen in `rounds` (the command `choosing`, the search
`halving`). The command `report` asks `results` for what came of it, `plots` to draw and `page` to print it. Whether a
model can choose by itself is asked by the command `calibration`: `recovery` and `alignment` measure it (`signals`), and
`calibration_page`, with `recovery_page` in it, and `calibration_plots` show it.

Pictures of emoji have judges of their own with the same interface, `emoji_judges`; `emoji_check` shows whether they
agree with an eye.

May import the pack, `toy`, `make.markdown` and what gets and runs a host; never `cost`.
"""
