"""What the output nodes of a graph show, through a live server, and what is in the files that it saves."""

import asyncio
import io

import aiohttp
import av
import numpy as np
import requests
from PIL import Image


def frames(data):
    """The pictures of a saved file: (1, height, width, RGB), of a video (frames, …). The graph in the file aside."""
    if data.startswith(b"\x89PNG"):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]
    with av.open(io.BytesIO(data)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def outputs(server, graph):
    """What each output node showed, by its class."""
    return {graph[key]["class_type"]: shown for key, shown in outputs_by_id(server, graph).items()}


def outputs_by_id(server, graph):
    """What each output node showed, by its id in the graph."""
    asyncio.run(_queued(server, graph))
    (last,) = requests.get(f"{server.url}/history?max_items=1", timeout=30).json().values()
    assert last["status"]["status_str"] == "success", last["status"]
    return last["outputs"]


async def _queued(server, graph):
    from nag_pag_flux.lab import server as client

    url = f"{server.url.replace('http', 'ws', 1)}/ws?clientId=showing"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as events:
        await client._follow(events, await client._queue(session, server, graph, "showing"), lambda *args: None)
