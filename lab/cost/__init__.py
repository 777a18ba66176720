"""What a step costs: time, memory, compiled graphs and synchronisations, beside the plain model and peers.

May import the pack, `evidence.contenders`, `make.markdown` and what gets and runs a host.
"""
