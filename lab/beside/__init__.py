"""Other packs' nodes beside ours, run and not only read: each in both orders, on a small FLUX; see `command`.

Not needed to use the nodes, and no part of `make test`: it runs whatever packs are in the folder that it is given.
"""
