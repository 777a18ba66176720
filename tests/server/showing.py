"""What the output nodes of a graph show, through a live server."""

import asyncio

import aiohttp
import requests


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
