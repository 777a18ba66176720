"""Pictures over HTTP and from a command line: what may be asked, the server inside ComfyUI, and its client.

May import what can be asked, and nothing else of the pack; `server` and `client` never each other. ComfyUI is known to
`server/host.py` alone.
"""
