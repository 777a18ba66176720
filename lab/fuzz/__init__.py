"""What strangers may send, by the ten thousand: block specs and requests, with what must hold of every answer.

May import the pack, what gets and runs a host, and `make.markdown`.
"""
