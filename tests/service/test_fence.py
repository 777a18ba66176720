"""The fence around fetching, case by case, against local servers of every bad sort."""

import asyncio
import base64
import contextlib
import io
import re
import socket
import struct
import tracemalloc
import urllib.parse
import zlib
from dataclasses import replace

import numpy as np
import pytest
import requests
from aiohttp import web
from asking import host_loads, png, take, until
from hypothesis import given, settings
from hypothesis import strategies as st
from nag_pag_flux.nagpag.service.server import decoding, fetch, pictures
from nag_pag_flux.nagpag.service.server.fetch import Fence, FetchingOff, Refused, is_public
from nag_pag_flux.nagpag.service.server.held import Busy, Held
from nag_pag_flux.nagpag.service.server.store import Store
from PIL import Image

PICTURE = png()
PATIENCE = 60.0  # seconds, for what ends long before, however slow the machine is


# --- which addresses are public ---

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::5e",
          "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]  # fmt: skip
INSIDE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1",
    "100::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::1", "2002:a00:1::", "2002:c0a8:101::1",
    "2001:0:7f00:1::", "2001::f5ff:fffe", "2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:a00:1",
    "4000::1", "8000::1", "no address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_never_more_public_than_itself(inner):
    """Mapped, NAT64, 6to4, Teredo (its client is written inverted), ISATAP."""
    low = int(inner)
    words = f"{low >> 16:x}:{low & 0xFFFF:x}"
    inverted = f"{(low ^ 0xFFFFFFFF) >> 16:x}:{(low ^ 0xFFFFFFFF) & 0xFFFF:x}"
    teredo = f"2001:0:808:808:0:0:{inverted}"
    for outer in (f"::ffff:{words}", f"64:ff9b::{words}", f"2002:{words}::1", f"2a00:1450::5efe:{words}", teredo):
        assert is_public(outer) <= is_public(str(inner)), outer


# --- local servers ---


class Local:
    """Servers on loopback addresses that a fence is told to take for public ones."""

    def __init__(self, stack):
        self.stack, self.hits = stack, []

    async def serve(self, handler, address="127.0.0.1", port=0):
        """Run `handler` for every path; the port."""

        async def counted(request):
            self.hits.append((address, request.host, request.path))
            return await handler(request)

        runner = web.AppRunner(app := web.Application())
        app.router.add_get("/{path:.*}", counted)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, address, port)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    async def serve_raw(self, *parts, pause=0.0):
        """Answer any request with these bytes, `pause` seconds apart, then close; the port."""

        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.stack.callback(server.close)
        return server.sockets[0].getsockname()[1]


def fence(*answers, allowed=("127.0.0.1",), **limits):
    """A fence whose names resolve to these answers, one after the other, the last one for ever; and the names asked."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return list(answers[min(len(asked), len(answers)) - 1])

    return Fence(resolve=resolve, allowed=lambda address: address in allowed, **limits), asked


def run(work):
    """Run `work(local)` with local servers that are stopped afterwards."""

    async def inside():
        async with contextlib.AsyncExitStack() as stack:
            return await work(Local(stack))

    return asyncio.run(inside())


async def picture(request):
    return web.Response(body=PICTURE, content_type="text/html")  # whatever the content type says


def refused(text):
    return pytest.raises(Refused, match=text)


def test_a_picture_is_fetched_whatever_its_type_says(tmp_path):
    async def work(local):
        port = await local.serve(picture)
        url, open_fence = f"http://example.org:{port}/a.png", fence(["127.0.0.1"])[0]
        fit = await pictures.take(url, (80, 64), Store(tmp_path), host_loads(tmp_path), fence=open_fence)
        return fit["file"], fit["size"], port, local.hits

    name, size, port, hits = run(work)
    assert size == (80, 64) and (tmp_path / name).is_file() and name.startswith("nag-pag/")
    assert hits == [("127.0.0.1", f"example.org:{port}", "/a.png")]  # the checked address, under the name's Host


def test_every_address_of_the_name_must_be_allowed():
    async def work(local):
        port = await local.serve(picture)
        with refused("does not lead to a public address"):
            await fetch.fetch(f"http://example.org:{port}/", fence(["127.0.0.1", "127.0.0.2"])[0])
        assert not local.hits

    run(work)


def test_the_name_is_asked_once_and_the_checked_address_is_used():
    """DNS rebinding: the second answer leads to another server, which must never be reached."""

    async def work(local):
        port = await local.serve(picture)
        await local.serve(picture, "127.0.0.2", port)
        rebinding, asked = fence(["127.0.0.1"], ["127.0.0.2"])
        assert await fetch.fetch(f"http://rebind.example:{port}/", rebinding) == PICTURE
        assert asked == ["rebind.example"] and [hit[0] for hit in local.hits] == ["127.0.0.1"]

    run(work)


def test_a_redirect_resolves_anew_and_is_checked_anew():
    async def work(local):
        async def back(request):
            raise web.HTTPFound("/again")

        port = await local.serve(back)
        await local.serve(picture, "127.0.0.2", port)
        rebinding, asked = fence(["127.0.0.1"], ["127.0.0.2"])
        with refused("does not lead to a public address"):
            await fetch.fetch(f"http://rebind.example:{port}/", rebinding)
        assert asked == ["rebind.example"] * 2 and [hit[0] for hit in local.hits] == ["127.0.0.1"]

    run(work)


@pytest.mark.parametrize(
    "where, why",
    [
        ("http://169.254.169.254/latest/meta-data/", "public address"),
        ("http://[::1]/", "public address"),
        ("//10.0.0.1/", "public address"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://example.org/", "only http and https"),
        ("http://user:secret@example.org/", "user name or password"),
        ("", "redirects more than 3 times"),  # to itself
    ],
)
def test_where_a_redirect_may_not_lead(where, why):
    async def work(local):
        async def away(request):
            return web.Response(status=302, headers={"Location": where})

        port = await local.serve(away)

        async def resolve(host, port):
            return ["127.0.0.1"] if host == "example.org" else await fetch.resolve_name(host, port)

        with refused(why):
            taken = Fence(resolve=resolve, allowed=lambda address: address == "127.0.0.1" or is_public(address))
            await fetch.fetch(f"http://example.org:{port}/", taken)

    run(work)


@pytest.mark.parametrize("hops, taken", [(3, True), (4, False)])
def test_three_redirects_at_most(hops, taken):
    async def work(local):
        async def chain(request):
            number = int(request.path[1:])
            return (
                await picture(request)
                if number == hops
                else web.Response(status=307, headers={"Location": f"/{number + 1}"})
            )

        port = await local.serve(chain)
        url, open_fence = f"http://example.org:{port}/0", fence(["127.0.0.1"])[0]
        if taken:
            assert await fetch.fetch(url, open_fence) == PICTURE
        else:
            with refused("redirects more than 3 times"):
                await fetch.fetch(url, open_fence)
        assert len(local.hits) == 4

    run(work)


@pytest.mark.parametrize("part", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_one_that_drips_is_given_up_in_all(part):
    """Each byte comes in time; all of them don't."""

    async def work(local):
        head = [] if part.startswith(b"HTTP") else [b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"]
        port = await local.serve_raw(*head, part, *[b"x"] * 100, pause=0.05)
        with refused("longer than 0.4 s"):
            await fetch.fetch(f"http://example.org:{port}/", fence(["127.0.0.1"], seconds=0.4)[0])

    run(work)


def test_a_resolver_that_hangs_is_given_up():
    async def work(local):
        async def resolve(host, port):
            await asyncio.sleep(60)

        with refused("longer than 0.2 s"):
            await fetch.fetch("http://example.org/", Fence(resolve=resolve, seconds=0.2))

    run(work)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "parts, why",
    [
        ([HEAD + b"Content-Length: 999999999\r\n\r\n", b"x"], "larger than 1000 bytes"),
        ([HEAD + b"Content-Length: 900\r\n\r\n", b"x" * 100], "broke off"),  # less than it says
        ([HEAD + b"Content-Length: 10\r\n\r\n" + b"x" * 100], "broke off"),  # more than it says
        ([HEAD + b"\r\n", b"x" * 5000], "larger than 1000 bytes"),  # no length at all
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"200\r\n" + b"x" * 512 + b"\r\n"] * 4], "larger than 1000"),
        ([HEAD + b"Content-Length: -5\r\n\r\nx"], "broke off"),
        ([HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"], "compressed"),
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], "status 404"),
        ([b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx"], "status 206"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n"], "broke off"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"], "broke off"),
        ([b""], "broke off"),
    ],
    ids=["long", "short", "more", "no length", "chunked", "negative", "gzip", "404", "206", "ssh", "header", "nothing"],
)
def test_servers_that_lie(parts, why):
    async def work(local):
        port = await local.serve_raw(*parts)
        with refused(why):
            await fetch.fetch(f"http://example.org:{port}/", fence(["127.0.0.1"], most_bytes=1000)[0])

    run(work)


def test_only_so_many_are_fetched_at_once():
    """Ten that stall near their end: never more than the limit are open; then the others have their turn."""
    open_now, most, go_on = [0], [0], asyncio.Event()

    async def stalls(request):
        answer = web.StreamResponse(headers={"Content-Length": "100000"})
        open_now[0] += 1
        most[0] = max(most[0], open_now[0])
        try:
            await answer.prepare(request)
            await answer.write(b"x" * 99_000)
            await go_on.wait()
            await answer.write(b"x" * 1000)
        finally:
            open_now[0] -= 1
        return answer

    async def work(local):
        port = await local.serve(stalls)
        turns, held = asyncio.Semaphore(fetch.MOST_AT_ONCE), Held()
        open_fence = replace(fence(["127.0.0.1"], seconds=PATIENCE)[0], turns=turns)

        async def one():
            with held.share() as share:
                return len(await fetch.fetch(f"http://example.org:{port}/", open_fence, share))

        asking = [asyncio.create_task(one()) for _ in range(10)]
        await until(lambda: held.bytes == fetch.MOST_AT_ONCE * 99_000)
        assert open_now == [fetch.MOST_AT_ONCE] and turns.locked()
        go_on.set()
        assert await asyncio.gather(*asking) == [100_000] * 10
        assert held.bytes == 0 and not turns.locked()

    run(work)
    assert most == [fetch.MOST_AT_ONCE]


def test_one_that_never_has_its_turn_is_told_so():
    """All turns are taken; none is lost by the one that gave up."""

    async def work(local):
        turns = asyncio.Semaphore(fetch.MOST_AT_ONCE)
        busy = replace(fence(["127.0.0.1"], seconds=0.1)[0], turns=turns)
        for _ in range(fetch.MOST_AT_ONCE):
            await turns.acquire()
        with pytest.raises(Busy, match=f"{fetch.MOST_AT_ONCE} pictures are fetched at once"):
            await fetch.fetch("http://example.org/", busy)
        turns.release()
        port = await local.serve(picture)
        assert await fetch.fetch(f"http://example.org:{port}/", replace(busy, seconds=PATIENCE)) == PICTURE
        assert not turns.locked()

    run(work)


def test_what_all_requests_hold_is_limited():
    async def work(local):
        port = await local.serve(picture)
        held, url = Held(most=2 * len(PICTURE) - 1), f"http://example.org:{port}/"
        with held.share() as first:
            await fetch.fetch(url, fence(["127.0.0.1"])[0], first)
            with pytest.raises(Busy, match="try again"), held.share() as second:
                await fetch.fetch(url, fence(["127.0.0.1"])[0], second)
            assert held.bytes == len(PICTURE)
        with held.share() as again:
            assert await fetch.fetch(url, fence(["127.0.0.1"])[0], again) == PICTURE

    run(work)


def test_a_port_that_nobody_listens_on():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with refused("can't be reached"):
            run(lambda local: fetch.fetch(f"http://example.org:{port}/", fence(["127.0.0.1"])[0]))


def test_a_proxy_from_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def work(local):
        port = await local.serve(picture)
        return await fetch.fetch(f"http://example.org:{port}/", fence(["127.0.0.1"])[0])

    assert run(work) == PICTURE


def test_the_limits_are_the_promised_ones():
    assert (Fence().seconds, Fence().most_bytes, fetch.MOST_REDIRECTS) == (20, 32 * 2**20, 3)
    assert Fence().allowed is is_public and decoding.MOST_PIXELS == 64_000_000


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false", " no "])
def test_fetching_can_be_turned_off(monkeypatch, tmp_path, value):
    monkeypatch.setenv("NAGPAG_FETCH", value)
    with pytest.raises(FetchingOff):
        take("http://example.org/a.png", tmp_path, fence=fence(["127.0.0.1"])[0])
    assert take(data_url(PICTURE), tmp_path)[1] == (80, 64)  # a data: URI reaches out to nothing


# --- the bytes ---


def data_url(data):
    return f"data:;base64,{base64.b64encode(data).decode()}"


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def bomb(width, height):
    """A whole PNG of few bytes and very many pixels' size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "not a whole picture"),
        (b"<html>no picture</html>", "not a whole picture"),
        (PICTURE[:-30], "not a whole picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a whole picture"),  # would start ghostscript
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a whole picture"),
        (bomb(8001, 8000), "more than 64 megapixels"),
        (bomb(60_000, 60_000), "more than 64 megapixels"),
    ],
    ids=["empty", "html", "cut", "eps", "svg", "bomb", "large bomb"],
)
def test_bytes_that_are_no_picture(tmp_path, data, why):
    with refused(why):
        take(data_url(data), tmp_path)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(tmp_path, kind):
    name, size = take(data_url(saved(Image.new("RGB", (30, 20), "red"), kind)), tmp_path)
    kept = Image.open(tmp_path / name)
    assert size == (30, 20) == kept.size and (kept.format, kept.mode) == ("PNG", "RGB")


def test_it_is_kept_upright_without_what_it_carried(tmp_path):
    """EXIF orientation is applied; of an animation the first picture is kept."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "somewhere secret"
    name, size = take(data_url(saved(Image.new("RGB", (30, 20)), "JPEG", exif=exif)), tmp_path)
    assert size == (20, 30) and b"secret" not in (tmp_path / name).read_bytes()
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    name, _ = take(data_url(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])), tmp_path)
    assert getattr(Image.open(tmp_path / name), "n_frames", 1) == 1
    assert Image.open(tmp_path / name).getpixel((0, 0)) in [(255, 0, 0), (254, 0, 0)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_pictures_of_every_format_are_refused_not_raised(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(decoding.FORMATS))
    whole = bytearray(saved(Image.new("RGB", (20, 20), "green"), kind))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refused):
        decoding.decoded(io.BytesIO(bytes(whole)))


@pytest.mark.parametrize(
    "uri, why",
    [
        ("data:image/png;base64", "no comma"),
        ("data:;base64,@@@@", "not valid base64"),
        ("data:;base64,abc", "not valid base64"),
        ("data:,hello", "not a whole picture"),
        ("data:;base64," + "A" * (44 * 2**20), "larger than 32 MiB"),
        ("data:,%4", "no two hexadecimal digits"),
        ("data:;base64,AAAA%3d%", "no two hexadecimal digits"),
        ("data:;base64,AAAA\ud800", "not valid base64"),
    ],
    ids=["comma", "base64", "padding", "text", "large", "escape", "last escape", "surrogate"],
)
def test_bad_data_uris(tmp_path, uri, why):
    with refused(why):
        take(uri, tmp_path)


def test_an_escaped_uri_takes_no_more_memory_than_a_few_copies_of_it():
    data = np.random.default_rng(0).integers(0, 256, 3 * 2**20, dtype=np.uint8).tobytes()
    uri = f"data:,{''.join(f'%{byte:02X}' for byte in data)}"
    tracemalloc.start()
    found = pictures._data(uri)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == data and most < 2 * len(uri)


@settings(max_examples=50)
@given(st.text(max_size=60), st.integers(1, 7))
def test_escapes_are_read_as_urllib_reads_them(text, piece):
    """Wherever the pieces are cut."""
    uri = "data:," + re.sub("%(?![0-9a-fA-F]{2})", "%25", text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "_PIECE", piece + 2)
        assert pictures._data(uri) == urllib.parse.unquote_to_bytes(uri[6:].encode("utf-8", "replace"))


@settings(max_examples=50)
@given(st.text("AQgw+/=", max_size=14) | st.binary(max_size=14).map(lambda data: base64.b64encode(data).decode()))
def test_base64_is_read_as_strictly_as_in_one_piece(text):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "_PIECE", 4)
        try:
            expected = base64.b64decode(text, validate=True)
            if len(text) % 4:  # RFC 4648; Python lets a sign of padding too many pass
                raise ValueError
        except ValueError:
            with refused("not valid base64"):
                pictures._data(f"data:;base64,{text}")
        else:
            assert pictures._data(f"data:;base64,{text}") == expected


def test_data_uris_as_rfc_2397_has_them(tmp_path):
    encoded = base64.b64encode(PICTURE).decode()
    percent = "".join(f"%{byte:02x}" for byte in PICTURE)
    escaped = encoded.replace("+", "%2B").replace("=", "%3d")
    for uri in (
        f"data:image/png;base64,{encoded}",
        f"data:;base64,{escaped}",
        f"DATA:;BASE64,{encoded}",
        f"data:image/png,{percent}",
    ):
        assert take(uri, tmp_path)[1] == (80, 64)


# --- names in the input folder ---


@pytest.fixture
def folder(tmp_path):
    """An input folder with a picture, and secrets beside it."""
    root = tmp_path / "input"
    (root / "sub").mkdir(parents=True)
    for place in (root / "a.png", root / "sub" / "b.png", tmp_path / "secret.png"):
        place.write_bytes(PICTURE)
    (tmp_path / "input-2").mkdir()
    (tmp_path / "input-2" / "c.png").write_bytes(PICTURE)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "out").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    (root / "note.txt").write_text("no picture")
    return root


@pytest.mark.parametrize("name", ["a.png", "sub/b.png"])
def test_names_inside(folder, name):
    assert take(name, folder) == (name, (80, 64))


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "sub/../../secret.png", "sub/../a.png", "{root}/a.png", "{out}/secret.png", "/etc/passwd",
     "link.png", "out/secret.png", "loop", "../input-2/c.png", "a.png [output]", "a.png [temp]", "a.png [input]",
     "secret.png[output]", "..\\secret.png", "a.png\0", "nothing.png", "sub", "", ".", "x" * 5000],
)  # fmt: skip
def test_names_that_leave_the_folder_read_like_names_of_nothing(folder, name):
    with pytest.raises(Refused) as caught:
        take(name.format(root=folder, out=folder.parent), folder)
    assert str(caught.value) == "there is no such picture in the input folder"


def test_files_that_are_no_single_picture(folder):
    with refused("not a whole picture"):
        take("note.txt", folder)
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    (folder / "two.gif").write_bytes(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    with refused("animation of 2 pictures"):
        take("two.gif", folder)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/a.png", "javascript:alert(1)", "blob:x"])
def test_other_schemes(tmp_path, url):
    with refused("only http, https and data"):
        take(url, tmp_path)


# --- what the graph keeps of it ---


@pytest.mark.parametrize("size", [(80, 64), (64, 80), (101, 37), (64, 64), (3, 1000)])
def test_the_fit_is_what_the_host_cuts(size):
    """Against the arithmetic of the host's own node, on its tensors."""
    import numpy as np

    to = (64, 48)
    fit = {"kept": pictures.kept(size, to)}
    columns = np.arange(size[0]), np.arange(size[1])
    assert abs(fit["kept"][0] / fit["kept"][1] - to[0] / to[1]) <= 2 * to[0] / to[1] / min(fit["kept"])
    assert all(
        kept <= len(line) and (len(line) - kept) % 2 == 0 for kept, line in zip(fit["kept"], columns, strict=True)
    )
    assert fit["kept"][0] == size[0] or fit["kept"][1] == size[1]


def test_too_narrow_to_be_fitted():
    with refused("too narrow"):
        pictures.kept((1, 4096), (64, 64))


# --- through the live server ---


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/a", "http://localhost:{port}/", "http://2130706433:{port}/", "http://0x7f.1:{port}/",
     "http://127.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://0:{port}/", "http://no-such-name.invalid/",
     "http://169.254.169.254/latest/meta-data/", "https://user:pw@127.0.0.1/", "http://", "http://[::1",
     "http://a:99999/", "file:///etc/passwd", "../../server.log", "../output/x.png"],
)  # fmt: skip
def test_the_live_service_reaches_nothing_inside(service, url):
    hits = []

    async def work(local):
        port = await local.serve(picture)
        body = {"prompt": "a cat", "image_url": url.format(port=port)}
        answer = await asyncio.to_thread(service.raw, "image-to-image", json=body)
        hits.extend(local.hits)
        return answer

    answer = run(work)
    (error,) = answer.json()["errors"]
    assert answer.status_code == 400 and error["pointer"] == "#/image_url" and not hits
    if "public" in error["rule"]:
        assert error["rule"] == "its host does not lead to a public address"  # no word of what it leads to


def test_the_live_service_says_why_it_takes_no_picture(service):
    answer = service.post("image-to-image", image_url="data:,no%20picture")
    assert answer.status_code == 400 and "not a whole picture" in answer.json()["errors"][0]["rule"]
    assert not requests.get(f"{service.url}/queue", timeout=30).json()["queue_pending"]
