"""The small FLUX: pictures of shapes and of emoji, the model that learns them, its autoencoder, what is shipped.

May import what gets and runs a host (`lab/*.py`), never `evidence` or `cost`.
"""
