"""Pictures of every sort look the same sent as data as from the input folder; the oracle is the host's own LoadImage.

Both ways go through the host's own nodes, LoadImage and ImageScale, to what the autoencoder gets.
"""

import base64
import contextlib
import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from asking import host_loads, take
from hypothesis import given, settings
from hypothesis import strategies as st
from nag_pag_flux.nagpag.service.server.fetch import Refused
from PIL import Image

ROWS, COLUMNS = np.mgrid[0:1:40j, 0:1:70j]  # each a ramp
RAMPS = Image.fromarray((np.stack([ROWS, COLUMNS, (ROWS + COLUMNS) / 2], -1) * 255).astype(np.uint8))


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def data_url(data):
    return f"data:;base64,{base64.b64encode(data).decode()}"


def ramp(kind, most):
    return Image.fromarray((ROWS * most).astype(kind))


def with_alpha(mode):
    picture = RAMPS.convert(mode.removesuffix("A"))
    picture.putalpha(Image.fromarray((COLUMNS * 255).astype(np.uint8)))
    return picture


def several(kind, **options):
    pages = [Image.fromarray(np.asarray(RAMPS) // (i + 1)) for i in range(3)]
    return saved(pages[0], kind, save_all=True, append_images=pages[1:], **options)


def chunk(kind, data):
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rgb16():
    """A PNG of 16 bits in three colours, which Pillow does not write."""
    values = (np.stack([ROWS, COLUMNS, (ROWS + COLUMNS) / 2], -1) * 65535).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    head = struct.pack(">IIBBBBB", 70, 40, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


KINDS = ("PNG", "TIFF", "GIF", "BMP")
PALETTE = RAMPS.quantize(16)
LOSSLESS = {
    **{f"{mode} {kind}": saved(ramp(mode, 65535), kind) for mode in ("<u2", ">u2") for kind in ("TIFF", "PNG")},
    "32 bits": saved(ramp(np.int32, 65535), "TIFF"),
    "32 bits, small": saved(ramp(np.int32, 255), "TIFF"),
    "floats to 1": saved(ramp(np.float32, 1), "TIFF"),
    "floats to 255": saved(ramp(np.float32, 255), "TIFF"),
    **{
        f"{mode} {kind}": saved(RAMPS.convert(mode), kind)
        for mode in ("1", "L", "P")
        for kind in ("PNG", "TIFF", "GIF")
    },
    **{f"{mode} BMP": saved(RAMPS.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")},
    **{f"{mode} {kind}": saved(with_alpha(mode), kind) for mode in ("LA", "RGBA") for kind in ("PNG", "TIFF", "GIF")},
    "CMYK TIFF": saved(RAMPS.convert("CMYK"), "TIFF"),
    "a transparent colour": saved(PALETTE, "PNG", transparency=3),
    "a transparent colour in a GIF": saved(PALETTE, "GIF", transparency=3),
    "a transparent grey": saved(RAMPS.convert("L"), "PNG", transparency=100),
    "a palette with alpha": saved(PALETTE, "PNG", transparency=bytes(range(0, 256, 16))),
    "16 bits in three colours": rgb16(),
    "lossless WebP": saved(RAMPS, "WEBP", lossless=True),
    "LZW": saved(ramp("<u2", 65535), "TIFF", compression="tiff_lzw"),
}
LOSSY = {
    "JPEG": saved(RAMPS, "JPEG"),
    "progressive": saved(RAMPS, "JPEG", progressive=True),
    "grey": saved(RAMPS.convert("L"), "JPEG"),
    "CMYK": saved(RAMPS.convert("CMYK"), "JPEG"),
    "WebP": saved(RAMPS, "WEBP"),
    "WebP with alpha": saved(with_alpha("RGBA"), "WEBP"),
    "a photo with an inset": several("MPO"),
    "YCbCr TIFF": saved(RAMPS.convert("YCbCr"), "TIFF"),
}


def scaled(folder, name, to):
    """What the graph's nodes make of this file, in 8 bits."""
    load = host_loads(folder)
    import torch

    import nodes

    (picture,) = nodes.ImageScale().upscale(torch.from_numpy(load(name)[:1]), "lanczos", *to, "center")
    return np.rint(picture[0].numpy() * 255).astype(int)


def both_ways(data, folder, to):
    """What becomes of it by name and as data, and how it was kept."""
    (folder / "named").write_bytes(data)
    name, size = take(data_url(data), folder, to)
    return scaled(folder, "named", to), scaled(folder, name, to), Image.open(folder / name), size


@pytest.mark.parametrize("case", LOSSLESS)
def test_what_loses_nothing_is_the_same(tmp_path, case):
    """To the bit where Pillow and the host read the same bits; a bit off where hosts round on their own."""
    named, sent, _, size = both_ways(LOSSLESS[case], tmp_path, (48, 48))
    off = 3 if case in ("RGB BMP", "lossless WebP", "16 bits in three colours") else 0
    assert size == (70, 40) and abs(named - sent).max() <= off
    assert named.std() > 20 or "32 bits" in case or case == "floats to 1"  # no white or black ones, but the host's own


@pytest.mark.parametrize("case", LOSSY)
def test_what_decoders_differ_in_looks_the_same(tmp_path, case):
    named, sent, _, _ = both_ways(LOSSY[case], tmp_path, (70, 40))
    assert abs(named - sent).max() <= 8 and abs(named - sent).mean() < 2 and named.std() > 20


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_it_is_turned_as_the_host_turns_it(tmp_path, kind, orientation):
    """Mirrored ones, too, which this host takes for turned ones; and the size that is told is the turned one's."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(RAMPS, kind, exif=exif)
    named, sent, _, size = both_ways(data, tmp_path, (96, 96))
    assert abs(named - sent).mean() < 2
    assert size == take("named", tmp_path, (96, 96))[1] == ((40, 70) if orientation in range(5, 9) else (70, 40))


def png_with(**chunks):
    """The ramps as PNG with these chunks, before the pixels or, named with an underscore, after them."""
    whole = saved(RAMPS, "PNG")
    before, after = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    own = {name: chunk(name.strip("_").encode(), data) for name, data in chunks.items()}
    first = b"".join(one for name, one in own.items() if not name.endswith("_"))
    last = b"".join(one for name, one in own.items() if name.endswith("_"))
    return whole[:before] + first + whole[before:after] + last + whole[after:]


def xmp(orientation, form='tiff:Orientation="%d"'):
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description {form % orientation}/></x:xmpmeta>".encode()


def elsewhere(orientation):
    """Pictures whose orientation is not, or not alone, where EXIF is looked for first."""
    exif, other = Image.Exif(), Image.Exif()
    exif[0x0112], other[0x010F] = orientation, "a maker"
    raw = exif.tobytes()
    profile = f"Raw profile type exif\0\nexif\n{len(raw):8}\n{raw.hex()}\n".encode()
    told, element = xmp(orientation), xmp(orientation, "><tiff:Orientation>%d</tiff:Orientation>")
    itxt = b"XML:com.adobe.xmp\0\0\0\0\0"
    tiff = Image.Exif()
    tiff[700] = told
    return {
        "JPEG": saved(RAMPS, "JPEG", xmp=told),
        "JPEG, an element": saved(RAMPS, "JPEG", xmp=element),
        "JPEG, beside EXIF": saved(RAMPS, "JPEG", xmp=told, exif=other),
        "JPEG, against EXIF": saved(RAMPS, "JPEG", xmp=xmp(3), exif=exif),
        "WebP": saved(RAMPS, "WEBP", xmp=told, lossless=True),
        "TIFF": saved(RAMPS, "TIFF", exif=tiff),
        "PNG": png_with(iTXt=itxt + told),
        "PNG, no UTF-8": png_with(iTXt=itxt + told + b"\xff"),
        "PNG, plain text": png_with(tEXt=b"XML:com.adobe.xmp\0" + told),
        "PNG, after the pixels": png_with(iTXt_=itxt + element),
        "PNG, a raw profile": png_with(tEXt=profile),
        "PNG, EXIF after the pixels": png_with(eXIf_=raw.removeprefix(b"Exif\0\0")),
    }


@pytest.mark.parametrize("by_pillow", [False, True])
@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("case", elsewhere(1))
def test_an_orientation_elsewhere_turns_it_as_the_host_does(tmp_path, monkeypatch, case, orientation, by_pillow):
    """LoadImage leaves to Pillow what its other decoder finds nothing in, and older hosts leave all to it."""
    host_loads(tmp_path)
    import nodes

    if by_pillow and hasattr(nodes, "InputImpl"):
        nothing = SimpleNamespace(images=np.empty((0,)))
        monkeypatch.setattr(nodes.InputImpl.VideoFromFile, "get_components", lambda self: nothing)
    data = elsewhere(orientation)[case]
    named, sent, _, size = both_ways(data, tmp_path, (96, 96))
    assert abs(named - sent).mean() < 2 and size == take("named", tmp_path, (96, 96))[1]
    assert not by_pillow or size == ((70, 40) if orientation == 1 else (40, 70))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_kept(tmp_path, kind):
    data = several(kind)
    name, _ = take(data_url(data), tmp_path, (70, 40))
    (tmp_path / "first.png").write_bytes(saved(Image.open(io.BytesIO(data)).convert("RGB"), "PNG"))
    assert abs(scaled(tmp_path, name, (70, 40)) - scaled(tmp_path, "first.png", (70, 40))).max() <= 1
    (tmp_path / "all").write_bytes(data)
    with pytest.raises(Refused, match="animation of 3 pictures"):
        take("all", tmp_path)


# --- kept no larger than the job needs ---


@pytest.mark.parametrize("size", [(70, 40), (640, 40), (300, 500), (31, 1000), (64, 64)])
@pytest.mark.parametrize("to", [(64, 64), (16, 80), (128, 64)])
def test_it_is_kept_no_larger_and_the_graph_makes_the_same_of_it(tmp_path, size, to):
    data = saved(RAMPS.resize(size), "PNG")
    named, sent, kept, told = both_ways(data, tmp_path, to)
    assert kept.width * kept.height <= to[0] * to[1] and told == size
    assert np.array_equal(named, sent)


# --- what is broken ---


def exif_with(*tags):
    """EXIF whose entries are as given: (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


BROKEN_EXIF = {
    "orientation as text": exif_with((0x0112, 2, 4, 0x41424344)),
    "orientation as a fraction": exif_with((0x0112, 5, 1, 8)),
    "orientation as a fraction that is not there": exif_with((0x0112, 5, 1, 0xFFFFFFF0)),
    "many orientations": exif_with((0x0112, 3, 2, 0x00060006)),
    "too many orientations": exif_with((0x0112, 3, 0xFFFFFFFF, 0)),
    "orientation as bytes": exif_with((0x0112, 7, 4, 6)),
    "orientation as a float": exif_with((0x0112, 11, 1, 0x7FC00000)),
    "a type that is none": exif_with((0x0112, 99, 1, 6)),
    "a directory in itself": exif_with((0x8769, 4, 1, 8), (0x0112, 3, 1, 6)),
    "cut": exif_with((0x0112, 3, 1, 6))[:-8],
    "no header": b"Exif\0\0" + b"\xff" * 40,
    "nothing": b"Exif\0\0",
    "another beginning": b"\xff" * 60,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", BROKEN_EXIF)
def test_broken_exif_leaves_the_picture_as_the_host_shows_it(tmp_path, kind, case):
    """By name it is refused where LoadImage itself raises; as data it is then taken unturned."""
    broken, plain = saved(RAMPS, kind, exif=BROKEN_EXIF[case]), saved(RAMPS, kind)
    (tmp_path / "named").write_bytes(broken)
    try:
        take("named", tmp_path)
    except Refused as error:
        assert str(error) == "ComfyUI can't read it"
        (tmp_path / "named").write_bytes(plain)
    name, _ = take(data_url(broken), tmp_path, (96, 96))
    assert abs(scaled(tmp_path, "named", (96, 96)) - scaled(tmp_path, name, (96, 96))).mean() < 2


WHOLE = [
    *(saved(RAMPS, kind, exif=BROKEN_EXIF["many orientations"]) for kind in ("JPEG", "PNG", "WEBP")),
    *(LOSSLESS[case] for case in ("<u2 TIFF", "a palette with alpha", "a transparent colour in a GIF", "RGB BMP")),
    several("PNG"), several("GIF"), several("WEBP"), several("MPO"),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
       st.booleans(), st.booleans())  # fmt: skip
def test_mutated_pictures_are_taken_or_refused(tmp_path_factory, whole, changes, at_the_beginning, by_name):
    """Whatever its decoders raise, Pillow's or the host's; a short form of what was run at length."""
    data, reach = bytearray(whole), 200 if at_the_beginning else len(whole) - 1
    for where, value in changes:
        data[int(where * reach)] = value
    folder = tmp_path_factory.mktemp("input")
    (folder / "named").write_bytes(data)
    with contextlib.suppress(Refused):
        take("named" if by_name else data_url(data), folder)
    assert not [path for path in folder.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize("error", [MemoryError, AssertionError, RecursionError, KeyError, SystemError, UnicodeError])
def test_whatever_the_hosts_decoders_raise_is_a_refusal(tmp_path, error):
    def load(name):
        raise error

    (tmp_path / "named").write_bytes(LOSSLESS["<u2 PNG"])
    for url in ("named", data_url(LOSSLESS["<u2 PNG"])):
        with pytest.raises(Refused, match="ComfyUI can't read it"):
            take(url, tmp_path, load=load)
    assert not list(tmp_path.rglob("*.p*"))


def test_what_the_host_would_fail_at_is_refused_before_the_job(tmp_path):
    """Two pictures of different sizes in one file: LoadImage raises. Sent as data, the first is taken."""
    data = saved(RAMPS, "PNG") + saved(RAMPS.resize((20, 20)), "PNG")
    (tmp_path / "named").write_bytes(data)
    with pytest.raises(Refused, match="ComfyUI can't read it"):
        take("named", tmp_path)
    assert take(data_url(data), tmp_path)[1] == (70, 40)


def test_the_live_service_takes_odd_pictures_and_refuses_broken_ones(service):
    """The whole way: never a bare 500, and no job that fails."""
    odd = [saved(RAMPS, "JPEG", exif=exif) for exif in list(BROKEN_EXIF.values())[::5]] + [LOSSLESS["<u2 TIFF"]]
    for data in odd:
        assert service.post("image-to-image", image_url=data_url(data), num_inference_steps=1).status_code == 200
    (service.server.base / "input" / "lab.tif").write_bytes(saved(RAMPS.convert("LAB"), "TIFF"))
    answer = service.post("image-to-image", image_url="lab.tif")
    assert answer.status_code == 400 and answer.json()["errors"][0]["rule"] == "ComfyUI can't read it"
