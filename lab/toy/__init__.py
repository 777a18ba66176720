"""The small FLUX: pictures of coloured shapes and of emoji, the model that learns to draw them, its autoencoder, what is shipped.

May import what gets and runs a host (`lab/*.py`), never `evidence` or `cost`.
"""
