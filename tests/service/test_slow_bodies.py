"""Bodies that stall: what they hold is given back in time, and small requests pass meanwhile."""

import asyncio
import json

import pytest
from aiohttp import web
from asking import until
from nag_pag_flux.nagpag.service import request as table
from nag_pag_flux.nagpag.service.server import body
from nag_pag_flux.nagpag.service.server.held import Busy, Held
from nag_pag_flux.nagpag.service.server.problems import KINDS, Problem

MOST, MIB = table.MOST_BODY["image-to-image"], 2**20


async def serve(held, seconds, ask):
    """Answer each POST with how many bytes its body has, or the problem; what `ask`, given the port, finds."""

    async def answer(request):
        try:
            with held.share() as share:
                return web.json_response(len(await body.read(request, MOST, share, seconds)))
        except Problem as problem:
            return problem.response()
        except Busy:
            return web.Response(status=503)

    app = web.Application(client_max_size=MOST)
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, lingering_time=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return await ask(site._server.sockets[0].getsockname()[1])
    finally:
        await runner.cleanup()


async def send(port, told, sent):
    """A request that tells of so many bytes and sends so many; its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {told}\r\n\r\n"
    writer.write(head.encode() + b" " * sent)
    await writer.drain()
    return reader, writer


async def answered(connection):
    """Status and body."""
    reader, writer = connection
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    found = int(head.split()[1]), json.loads(await reader.readexactly(length) or "null")
    writer.close()
    return found


def test_small_requests_pass_while_large_ones_stall():
    held = Held(4 * MIB)

    async def ask(port):
        stalled = [await send(port, 3 * MIB, 2 * MIB - 1000) for _ in range(2)]
        await until(lambda: held.bytes == 4 * MIB - 2000)
        small = [await answered(await send(port, size, size)) for size in (100, MIB)]
        large = await answered(await send(port, MIB + 3000, MIB + 3000))
        for _, writer in stalled:
            writer.close()
        await until(lambda: held.bytes == 0)
        return small, large[0], await answered(await send(port, MIB + 1, MIB + 1))

    small, large, later = asyncio.run(serve(held, 60, ask))
    assert small == [(200, 100), (200, MIB)] and large == 503 and later == (200, MIB + 1)


@pytest.mark.parametrize("sent, seconds", [(0, 0.3), (100, 0.3), (2 * MIB, 2)])
def test_a_body_that_stalls_is_refused_and_holds_nothing_more(sent, seconds):
    held = Held(4 * MIB)

    async def ask(port):
        return await answered(await send(port, 3 * MIB, sent))

    status, problem = asyncio.run(serve(held, seconds, ask))
    assert status == KINDS["too-slow"][0] == 408 and problem["type"] == "urn:nag-pag:too-slow" and held.bytes == 0
    assert problem["detail"] == f"the body has to come in within {seconds} s"


def test_the_page_says_how_long():
    from nag_pag_flux.lab import host

    page = (host.REPO / "docs" / "api.md").read_text()
    assert f"within {body.SECONDS:g} s" in page and body.UNCOUNTED == table.MOST_BODY["text-to-image"] == MIB
