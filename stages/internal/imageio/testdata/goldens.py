"""Writes the samples and goldens of package imageio.

    python goldens.py resize     resize-<major version of Pillow>.json
    python goldens.py            and samples/, goldens.json
    python goldens.py DATA       and shared.json: a few pixels of the images in DATA

Made with Pillow 13.0.0 (libjpeg-turbo 3.2.0, libwebp 1.6.0, libtiff 4.7.2);
resize-12.json with Pillow 12.3.0. NumPy 2.4.6, Python 3.11.
"""

import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import warnings
import zlib

import numpy as np
import PIL
from PIL import Image

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, "samples")
rng = np.random.default_rng(20260101)


def photo(w, h, channels=3):
    """Smooth colour with edges and a little noise: what photographs are like."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    planes = []
    for c in range(channels):
        p = 128 + 70 * np.sin(x / (5.0 + 2 * c) + c) + 50 * np.cos(y / (7.0 - c) + x / 19)
        p[(x - w / 2) ** 2 + (y - h / 3) ** 2 < (min(w, h) / 4) ** 2] *= 0.4 + 0.5 * c
        planes.append(p + rng.normal(0, 6, (h, w)))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def noise(w, h, channels=3):
    return rng.integers(0, 256, (h, w, channels), dtype=np.uint8)


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


def rgb(data):
    with Image.open(io.BytesIO(data)) as im:
        return np.array(im.convert("RGB"))


decoded = []


def sample(name, data, note=""):
    """Keeps a file with Pillow's pixels; JPEG's as PNG, since they differ."""
    with open(os.path.join(SAMPLES, name), "wb") as f:
        f.write(data)
    a = rgb(data)
    row = {"file": name, "width": a.shape[1], "height": a.shape[0], "sha256": sha(a)}
    if name.endswith(".jpg"):
        Image.fromarray(a).save(os.path.join(SAMPLES, name + ".png"), optimize=True)
    decoded.append(row)


def save(im, fmt, **kw):
    b = io.BytesIO()
    im.save(b, fmt, **kw)
    return b.getvalue()


def jpegs():
    a = Image.fromarray(photo(53, 37))
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        sample(f"{name}.jpg", save(a, "JPEG", subsampling=sub, quality=90))
        sample(f"{name}-progressive.jpg", save(a, "JPEG", subsampling=sub, quality=85, progressive=True))
    sample("411.jpg", save(a, "JPEG", subsampling="4:1:1", quality=90))
    sample("420-restart.jpg", save(a, "JPEG", subsampling=2, quality=75, restart_marker_blocks=3))
    sample("420-noise.jpg", save(Image.fromarray(noise(33, 31)), "JPEG", subsampling=2, quality=95))
    sample("420-cifar.jpg", save(Image.fromarray(photo(32, 32)), "JPEG", subsampling=2, quality=95))
    for w, h in ((1, 1), (2, 3), (3, 2), (4, 4), (5, 1), (16, 17)):
        sample(f"420-{w}x{h}.jpg", save(Image.fromarray(noise(w, h)), "JPEG", subsampling=2, quality=95))
    sample("422-3x5.jpg", save(Image.fromarray(noise(3, 5)), "JPEG", subsampling=1, quality=95))
    sample("gray.jpg", save(a.convert("L"), "JPEG", quality=90))
    sample("gray-progressive.jpg", save(a.convert("L"), "JPEG", quality=90, progressive=True))
    sample("rgb.jpg", save(a, "JPEG", keep_rgb=True, quality=90))
    cmyk = Image.fromarray(photo(41, 29, 4), "CMYK")
    sample("cmyk.jpg", save(cmyk, "JPEG", quality=90))
    # The same samples read as YCCK: the transform byte of the Adobe marker says so.
    data = bytearray(save(cmyk, "JPEG", quality=90))
    data[data.index(b"Adobe") + 11] = 2
    sample("ycck.jpg", bytes(data))
    i = data.index(b"\xff\xee")
    n = struct.unpack(">H", data[i + 2 : i + 4])[0]
    sample("cmyk-unmarked.jpg", bytes(data[:i] + data[i + 2 + n :]))
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    halves = ((2, 2), (1, 1), (1, 1), (2, 2))
    sample("ycck-420.jpg", planar(43, 27, halves, adobe + b"\x02"))
    sample("cmyk-420.jpg", planar(43, 27, halves, adobe + b"\x00"))
    sample("440.jpg", planar(53, 37, ((1, 2), (1, 1), (1, 1))))
    sample("410.jpg", planar(53, 37, ((4, 2), (1, 1), (1, 1))))


def planar(w, h, factors, markers=b""):
    """A file with any sampling factors: each component is encoded as a gray
    JPEG of its own size, and the scans are put behind one frame header."""
    q = [4] * 64
    hmax, vmax = max(f[0] for f in factors), max(f[1] for f in factors)
    frame, scans = struct.pack(">BHHB", 8, h, w, len(factors)), b""
    for c, (fh, fv) in enumerate(factors):
        frame += bytes([c + 1, 16 * fh + fv, 0])
        plane = photo(-(-w * fh // hmax), -(-h * fv // vmax), 1)[..., 0]
        g = save(Image.fromarray(plane), "JPEG", qtables=[q])
        i, j = g.index(b"\xff\xc4"), g.index(b"\xff\xda")
        n = struct.unpack(">H", g[j + 2 : j + 4])[0]
        scans += g[i:j] + b"\xff\xda\x00\x08\x01" + bytes([c + 1, 0]) + b"\x00\x3f\x00" + g[j + 2 + n : -2]
    dqt = b"\xff\xdb\x00\x43\x00" + bytes(q)
    return b"\xff\xd8" + markers + dqt + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + scans + b"\xff\xd9"


def chunk(t, d):
    return struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))


def png_chunks(w, h, depth, kind, raw, interlace=0, extra=b""):
    """A PNG from filtered rows, for what Pillow cannot write."""
    head = struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def pack(a, depth):
    """Rows of samples [h, n] in depth bits, big endian, filter byte 0 before each."""
    rows = []
    for r in a:
        if depth == 16:
            rows.append(b"\0" + r.astype(">u2").tobytes())
        else:
            bits = np.unpackbits(r.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :].reshape(-1)
            rows.append(b"\0" + np.packbits(bits).tobytes())
    return b"".join(rows)


def interlaced(a, depth, channels):
    """Adam7: seven reduced images, [h, w·channels] samples in."""
    h, w = a.shape[0], a.shape[1] // channels
    a = a.reshape(h, w, channels)
    out = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        p = a[y0::dy, x0::dx]
        if p.size:
            out += pack(p.reshape(p.shape[0], -1), depth)
    return out


def pngs():
    w, h = 19, 13
    palette = rng.integers(0, 256, 256 * 3, dtype=np.uint8).tobytes()
    for kind, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 2, 4, 8)), (4, 2, (8, 16)), (6, 4, (8, 16))):
        for depth in depths:
            a = rng.integers(0, 1 << depth, (h, w * channels))
            if kind == 0 and depth == 16:
                a[:, ::2] //= 256  # some below 256, where Pillow does not clip
            extra = b""
            if kind == 3:
                extra = chunk(b"PLTE", palette[: 3 << depth]) + chunk(b"tRNS", bytes(range(0, 1 << depth)))
            name = f"kind{kind}-{depth}"
            sample(f"{name}.png", png_chunks(w, h, depth, kind, pack(a, depth), extra=extra))
            sample(f"{name}-adam7.png", png_chunks(w, h, depth, kind, interlaced(a, depth, channels), 1, extra))
            if kind in (0, 2):
                v = a[0, :channels]
                sample(f"{name}-trns.png", png_chunks(w, h, depth, kind, pack(a, depth), extra=chunk(b"tRNS", b"".join(struct.pack(">H", int(s)) for s in v))))
    # Palette of 5 with indices beyond it.
    a = rng.integers(0, 16, (h, w))
    sample("palette-short.png", png_chunks(w, h, 4, 3, pack(a, 4), extra=chunk(b"PLTE", palette[:15])))


def gifs():
    a = Image.fromarray(photo(21, 17))
    p = a.quantize(64)
    sample("plain.gif", save(p, "GIF", interlace=0))
    sample("interlaced.gif", save(p, "GIF", interlace=1))
    sample("gray.gif", save(a.convert("L"), "GIF"))
    sample("transparent.gif", save(p, "GIF", transparency=int(np.array(p)[0, 0])))
    frames = [Image.fromarray(photo(21, 17)).quantize(16) for _ in range(3)]
    sample("animated.gif", save(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50))
    # A first frame smaller than, and one larger than, the canvas.
    data = bytearray(save(p, "GIF", interlace=0))
    for name, (w, h) in (("small-frame", (30, 25)), ("large-frame", (15, 9))):
        d = bytearray(data)
        d[6:10] = struct.pack("<HH", w, h)
        sample(f"{name}.gif", bytes(d))
    d = bytearray(save(p, "GIF", interlace=0, transparency=int(np.array(p)[3, 3])))
    d[6:10] = struct.pack("<HH", 30, 25)
    sample("small-frame-transparent.gif", bytes(d))
    # Colours beyond a palette of two entries: shrink the global table.
    n = 3 << ((data[10] & 7) + 1)
    d = bytearray(data[:10]) + bytes([data[10] & 0xF8]) + data[11:13] + data[13:19] + data[13 + n :]
    sample("short-palette.gif", bytes(d))
    d = bytearray(data[:10]) + bytes([data[10] & 0x7F]) + data[11:13] + data[13 + n :]
    sample("no-palette.gif", bytes(d))


def bmps():
    a = Image.fromarray(photo(21, 17))
    sample("1.bmp", save(a.convert("1"), "BMP"))
    sample("8.bmp", save(a.convert("L"), "BMP"))
    sample("palette.bmp", save(a.quantize(200), "BMP"))
    sample("24.bmp", save(a, "BMP"))
    sample("32.bmp", save(Image.fromarray(noise(9, 7, 4), "RGBA"), "BMP"))


def tiffs():
    a = Image.fromarray(photo(21, 17))
    for c in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        sample(f"rgb-{c}.tiff", save(a, "TIFF", compression=c))
    sample("gray.tiff", save(a.convert("L"), "TIFF"))
    sample("bilevel.tiff", save(a.convert("1"), "TIFF"))
    sample("g4.tiff", save(a.convert("1"), "TIFF", compression="group4"))
    fax = bytearray(save(a.convert("1"), "TIFF", compression="group4"))
    fax[fax.index(struct.pack("<HHIH", 262, 3, 1, 1)) + 8] = 0
    sample("g4-white-is-zero.tiff", bytes(fax))
    sample("palette.tiff", save(a.quantize(200), "TIFF"))
    sample("rgba.tiff", save(Image.fromarray(noise(9, 7, 4), "RGBA"), "TIFF"))
    g = rng.integers(0, 65536, (7, 9)).astype(np.uint16)
    g[:, ::2] //= 256
    sample("gray16.tiff", save(Image.fromarray(g), "TIFF"))
    # Associated alpha: the extra sample's type is 1 instead of 2.
    d = bytearray(save(Image.fromarray(noise(9, 7, 4), "RGBA"), "TIFF"))
    i = d.index(struct.pack("<HHI", 338, 3, 1))
    d[i + 8] = 1
    sample("associated.tiff", bytes(d))


def webps():
    for w, h in ((21, 17), (20, 16), (1, 1), (2, 5)):
        a = Image.fromarray(photo(w, h))
        sample(f"lossy-{w}x{h}.webp", save(a, "WEBP", quality=80))
        sample(f"lossless-{w}x{h}.webp", save(a, "WEBP", lossless=True))
    n = Image.fromarray(noise(33, 31))
    sample("noise.webp", save(n, "WEBP", quality=95))
    rgba = Image.fromarray(np.dstack([photo(21, 17), noise(21, 17, 1)]), "RGBA")
    sample("alpha.webp", save(rgba, "WEBP", quality=80))
    sample("alpha-lossless.webp", save(rgba, "WEBP", lossless=True, exact=True))
    frames = [Image.fromarray(photo(21, 17)) for _ in range(3)]
    sample("animated.webp", save(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50, quality=80))


FILTERS = {"nearest": Image.Resampling.NEAREST, "box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def transform(im, shorter=0, exact=None, crop=None, filter="bilinear"):
    """torchvision.transforms.Resize and CenterCrop on a Pillow image."""
    w, h = im.size
    if shorter:
        short, long = min(w, h), max(w, h)
        new = int(shorter * long / short)
        exact = (new, shorter) if w <= h else (shorter, new)
    if exact and (h, w) != tuple(exact):
        im = im.resize((exact[1], exact[0]), FILTERS[filter])
    if crop:
        ch, cw = crop
        w, h = im.size
        if cw > w or ch > h:
            left, top = ((cw - w) // 2 if cw > w else 0), ((ch - h) // 2 if ch > h else 0)
            canvas = Image.new("RGB", (max(w, cw), max(h, ch)))
            canvas.paste(im, (left, top))
            im = canvas
            w, h = im.size
        top, left = int(round((h - ch) / 2.0)), int(round((w - cw) / 2.0))
        im = im.crop((left, top, left + cw, top + ch))
    return np.array(im)


def resizes():
    global rng
    rng = np.random.default_rng(7)
    out = []
    sources = {"noise-97x61": noise(97, 61), "photo-64x64": photo(64, 64), "photo-40x111": photo(40, 111), "noise-1x7": noise(1, 7)}
    for name, a in sources.items():
        Image.fromarray(a).save(os.path.join(SAMPLES, name + ".source.png"), optimize=True)
        im = Image.fromarray(a)
        h, w = a.shape[:2]
        for f in FILTERS:
            for exact in ((h, w), (h, 40), (40, w), (32, 32), (1, 1), (2, 3), (45, 29), (h - 1 or 1, w + 1), (2 * h + 1, 3 * w - 1), (224, 224), (17, 200), (7, 3), (9, 60)):
                out.append({"source": name, "filter": f, "exact": exact, "sha256": sha(transform(im, exact=exact, filter=f))})
            for shorter, crop in ((32, (28, 28)), (37, (32, 32)), (64, (64, 64)), (33, (28, 30)), (20, (31, 25)), (50, (40, 60))):
                out.append({"source": name, "filter": f, "shorter": shorter, "crop": crop, "sha256": sha(transform(im, shorter=shorter, crop=crop, filter=f))})
            for crop in ((30, 30), (61, 97), (200, 20), (62, 62), (23, 150)):
                out.append({"source": name, "filter": f, "crop": crop, "sha256": sha(transform(im, crop=crop, filter=f))})
    return out


def tensors():
    """float32 and float16 of every sample value, per channel, by NumPy."""
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    x = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    t = ((x - mean) / std).astype(np.float32).T
    tiny = np.float32([65504, 65520, 65519.996, 1e-7, 6e-8, 2.9802322e-8, 2.98023259e-8, 6.1e-5, 6.104e-5, 0.1, -0.1, 1 / 3, 2049, 2051, 0, -0.0])
    with np.errstate(over="ignore"):
        return {"float32": t.view(np.uint32).tolist(), "float16": t.astype(np.float16).view(np.uint16).tolist(),
                "half_in": tiny.view(np.uint32).tolist(), "half_out": tiny.astype(np.float16).view(np.uint16).tolist()}


def positions(n, count):
    """The same pixels on both sides: a linear congruential generator's."""
    x, out = 12345, []
    for _ in range(count):
        x = (1103515245 * x + 12345) % (1 << 31)
        out.append((x >> 8) % n)
    return out


def shared(root):
    out = []
    for tar, every, count in (("imagenet-samples/imagenet-samples-00000.tar", 20, 64), ("cifar10/cifar10-test-00000.tar", 50, 16)):
        with tarfile.open(os.path.join(root, tar)) as t:
            members = [m for m in t.getmembers() if m.isfile()]
            for m in members[::every]:
                data = t.extractfile(m).read()
                a = rgb(data).reshape(-1, 3)
                out.append({"tar": tar, "member": m.name, "pixels": a[positions(len(a), count)].tobytes().hex()})
    with open(os.path.join(HERE, "shared.json"), "w") as f:
        json.dump(out, f, indent=0)


def dump(name, body):
    """One row of a list a line."""
    def value(v):
        return "[\n" + ",\n".join(json.dumps(r) for r in v) + "\n]" if isinstance(v, list) else json.dumps(v)
    with open(os.path.join(HERE, name), "w") as f:
        f.write("{\n" + ",\n".join(json.dumps(k) + ": " + value(v) for k, v in body.items()) + "\n}\n")


if __name__ == "__main__":
    os.makedirs(SAMPLES, exist_ok=True)
    dump(f"resize-{PIL.__version__.split('.')[0]}.json", {"resize": resizes()})
    if sys.argv[1:] != ["resize"]:
        jpegs(), pngs(), gifs(), bmps(), tiffs(), webps()
        dump("goldens.json", {"decode": decoded, "tensor": tensors()})
        if len(sys.argv) > 1:
            shared(sys.argv[1])
