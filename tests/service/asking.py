"""Asking the live server's service for pictures, on the small models."""

import asyncio
import contextlib
import io
import sys

import numpy as np
import requests
from PIL import Image

# T5-XXL and FLUX's autoencoder have no small form; see lab/graphs.py. The model and CLIP-L are found.
SMALL = {
    "width": 64,
    "height": 64,
    "num_inference_steps": 2,
    "t5xxl": "clip_l_small.safetensors",
    "clip_type": "sd3",
    "vae": "taef1",
}
LONG = {"num_inference_steps": 200, "width": 512, "height": 512}  # minutes; never waited for


def command(*words, python=sys.executable):
    """The command line, to be run in the repo's root, as the package is not installed here."""
    return [str(python), "-m", "nagpag", *map(str, words)]


class Service:
    """The live server's service."""

    def __init__(self, server):
        self.server, self.url = server, server.url

    def post(self, endpoint="text-to-image", **body):
        return self.raw(endpoint, json={"prompt": "a cat", **SMALL, **body})

    def raw(self, endpoint="text-to-image", **request):
        return requests.post(f"{self.url}/nagpag/{endpoint}", timeout=120, **request)

    def job(self, prompt_id):
        return requests.get(f"{self.url}/nagpag/jobs/{prompt_id}", timeout=30)

    def cancel(self, prompt_id):
        return requests.delete(f"{self.url}/nagpag/jobs/{prompt_id}", timeout=30)

    @contextlib.contextmanager
    def holding(self):
        """Keep the queue from moving: a job runs meanwhile that would take minutes. Gives its prompt id."""
        prompt_id = self.post(wait=False, seed=99, **LONG).json()["prompt_id"]
        try:
            yield prompt_id
        finally:
            self.cancel(prompt_id)

    def queued(self):
        """Prompt ids that wait or run, by ComfyUI's own account."""
        found = requests.get(f"{self.url}/queue", timeout=30).json()
        return [item[1] for item in [*found["queue_running"], *found["queue_pending"]]]


def take(url, folder, to=(64, 64), fence=None, load=None):
    """The picture's name in this input folder and its size, as the service takes it; LoadImage is the host's own."""
    from nag_pag_flux.nagpag.service.server import pictures
    from nag_pag_flux.nagpag.service.server.store import Store

    fit = asyncio.run(pictures.take(url, to, Store(folder), load or host_loads(folder), fence=fence))
    return fit["file"], fit["size"]


def host_loads(folder):
    """The stock LoadImage on files of this folder, in this process, as the service asks it."""
    from nag_pag_flux.lab.in_host import enter_host

    enter_host()
    import folder_paths
    from nag_pag_flux.nagpag.service.server import host

    def load(name):
        before = folder_paths.get_input_directory()
        folder_paths.set_input_directory(str(folder))
        try:
            return host.load_image(name)
        finally:
            folder_paths.set_input_directory(before)

    return load


async def until(wanted):
    """Let the others of this loop run until `wanted` holds; half a minute is more than any needs."""
    async with asyncio.timeout(30):
        while not wanted():
            await asyncio.sleep(0.01)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def png(width=80, height=64, seed=0):
    """A picture's bytes."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()
