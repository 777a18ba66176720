"""What guidance does, measured on the small FLUX.

`contenders` are compared on pictures that `runs` samples and keeps (`sampling`), by the models that `subjects`
names and by `judges` that know nothing of each other; `gains` are what they say, with errors. Settings were chosen
in `rounds` (the command `choosing`; `experiments` and `free_methods` are tried there, too). Whether a negative
prompt is obeyed is asked by `obedience`, with `open_prompts`. The command `report` asks `results` for what came of
it, `plots` to draw and `page` to print it. Whether a model can choose by itself is asked by the command
`calibration`: `recovery` measures it, and `calibration_page` and `calibration_plot` show it.

`domains` says who asks for and judges each kind of pictures: emoji have `emoji_judges` and `emoji_prompts`;
`emoji_check` shows whether these judges agree with an eye.

May import the pack, `toy`, `make.markdown` and what gets and runs a host; never `cost`.
"""
