"""What suits a model: settings are searched by how surely the model finds its prompts again in what it drew.

May import the method beside it (maths, what can be asked, `patch`) and ComfyUI. Never the service, nor diagnostics.
"""
