"""Writes files of the repo from the code: workflows, the blueprint, translations, the table in docs/api.md, thumbnails,
Markdown tables.

May import the pack, `toy` and what gets and runs a host; never `evidence` or `cost`.
"""
