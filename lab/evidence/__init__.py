"""What guidance does, measured on the small FLUX: contenders, choosing, judges, and the pages that say what came of it.

May import the pack, `toy`, `make.markdown` and what gets and runs a host; never `cost`.
"""
