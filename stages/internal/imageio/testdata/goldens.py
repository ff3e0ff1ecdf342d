"""Writes the samples and goldens of package imageio.

    python goldens.py resize        resize-<major version of Pillow>.json
    python goldens.py               and samples/, goldens.json
    python goldens.py DATA          and shared.json: a few pixels of the images in DATA
    python goldens.py real DATA     real.json: digests of the images in DATA, decoded, resized and as
                                    tensors, by torchvision; without it, what this Pillow does otherwise

Made with Pillow 13.0.0 (libjpeg-turbo 3.2.0, libwebp 1.6.0, libtiff 4.7.2),
NumPy 2.4.6, Python 3.11. resize-12.json and real.json with Pillow 12.3.0, torchvision
0.13.1, torch 1.12.1, Python 3.10; the rest of real.json with Pillow 13.0.0.
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


decoded, refused = [], []
references = {}  # digest of the pixels: file of a JPEG's


def sample(name, data, note=""):
    """Keeps a file with the digest of Pillow's pixels; JPEG's also as PNG, since
    decoders differ."""
    with open(os.path.join(SAMPLES, name), "wb") as f:
        f.write(data)
    a = rgb(data)
    row = {"file": name, "width": a.shape[1], "height": a.shape[0], "sha256": sha(a)}
    if name.endswith(".jpg"):
        if row["sha256"] not in references:
            references[row["sha256"]] = name + ".png"
            Image.fromarray(a).save(os.path.join(SAMPLES, name + ".png"), optimize=True)
        row["reference"] = references[row["sha256"]]
    decoded.append(row)


def refuse(name, data, why):
    """Keeps a file that Pillow does not read, with the class of the error wanted."""
    with open(os.path.join(SAMPLES, name), "wb") as f:
        f.write(data)
    try:
        rgb(data)
    except (OSError, SyntaxError, ValueError) as e:
        message = str(e) if "cannot identify" not in str(e) else "cannot identify image file"
        refused.append({"file": name, "class": why, "pillow": message})
        return
    raise AssertionError(f"Pillow reads {name}")


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


def segments(data):
    """The marker segments of a JPEG before its scan, and the rest."""
    out, at = [], 2
    while data[at + 1] != 0xDA:
        n = struct.unpack(">H", data[at + 2 : at + 4])[0]
        out.append((data[at + 1], data[at + 4 : at + 2 + n]))
        at += 2 + n
    return out, data[at:]


def joined(segs, rest):
    return b"\xff\xd8" + b"".join(b"\xff" + bytes([m]) + struct.pack(">H", 2 + len(p)) + p for m, p in segs) + rest


def marked(data, transform=None):
    """The file without its JFIF and Adobe markers, or with Adobe's alone."""
    segs, rest = segments(data)
    segs = [s for s in segs if s[0] not in (0xE0, 0xEE)]
    if transform is not None:
        segs.insert(0, (0xEE, b"Adobe\x00\x64\x00\x00\x00\x00" + bytes([transform])))
    return joined(segs, rest)


def jpeg_variants():
    """Kinds of JPEG that a decoder may mistake, some in several rows and columns
    of MCUs."""
    a = Image.fromarray(smooth(97, 71))
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        sample(f"{name}-97x71.jpg", save(a, "JPEG", subsampling=sub, quality=85))
    sample("gray-97x71.jpg", save(a.convert("L"), "JPEG", quality=85))
    sample("440-97x71.jpg", planar(97, 71, ((1, 2), (1, 1), (1, 1)), noisy=False))
    small = Image.fromarray(photo(53, 37))
    y420 = save(small, "JPEG", subsampling=2, quality=90)
    y444 = save(small, "JPEG", subsampling=0, quality=90)
    progressive = save(a, "JPEG", subsampling=2, quality=60, progressive=True)
    restart = save(small, "JPEG", subsampling=2, quality=75, restart_marker_blocks=3)
    sample("420-progressive-97x71.jpg", progressive)
    sample("420-progressive-restart.jpg", save(a, "JPEG", subsampling=2, quality=60, progressive=True, restart_marker_rows=1))
    sample("420-restart-rows.jpg", save(a, "JPEG", subsampling=2, quality=75, restart_marker_rows=1))
    sample("422-restart.jpg", save(small, "JPEG", subsampling=1, quality=75, restart_marker_blocks=2))
    sample("420-quality5.jpg", save(small, "JPEG", subsampling=2, quality=5))
    sample("420-quality5-progressive.jpg", save(small, "JPEG", subsampling=2, quality=5, progressive=True))
    sample("420-optimised.jpg", save(small, "JPEG", subsampling=2, quality=90, optimize=True))
    sample("420-tables-of-16-bits.jpg", planar(43, 27, ((2, 2), (1, 1), (1, 1)), wide=True))
    # Who says what the components are: JFIF before Adobe before their numbers.
    rgb_numbers = (82, 71, 66)
    three = ((1, 1),) * 3
    sample("rgb-420.jpg", planar(43, 27, ((2, 2), (1, 1), (1, 1)), numbers=rgb_numbers))
    sample("rgb-numbers.jpg", planar(43, 27, three, numbers=rgb_numbers))
    sample("rgb-adobe.jpg", marked(y444, 0))
    sample("rgb-420-adobe.jpg", marked(y420, 0))
    sample("444-numbers-rgb-adobe-ycc.jpg", planar(43, 27, three, ADOBE + b"\x01", rgb_numbers))
    sample("444-numbers-rgb-jfif.jpg", planar(43, 27, three, JFIF, rgb_numbers))
    sample("444-numbers-012.jpg", planar(43, 27, three, numbers=(0, 1, 2)))
    sample("420-adobe-ycc.jpg", marked(y420, 1))
    sample("420-unmarked.jpg", marked(y420))
    d = bytearray(save(Image.fromarray(photo(41, 29, 4), "CMYK"), "JPEG", quality=90, progressive=True))
    d[d.index(b"Adobe") + 11] = 2
    sample("ycck-progressive.jpg", bytes(d))
    sample("factors-211211.jpg", planar(43, 27, ((2, 1), (1, 2), (1, 1))))
    sample("factors-311111.jpg", planar(43, 27, ((3, 1), (1, 1), (1, 1))))
    sample("440-doubled.jpg", planar(43, 27, ((2, 2), (2, 1), (2, 1))))
    i = y420.index(b"\xff\xda")
    sample("420-fill-bytes.jpg", y420[:i] + b"\xff\xff\xff" + y420[i:-2] + b"\xff\xff" + y420[-2:])
    sample("420-then-422.jpg", y420 + save(small, "JPEG", subsampling=1, quality=90))
    sample("420-comment.jpg", save(small, "JPEG", subsampling=2, quality=90, comment=b"\xff\xd9 \xff\xda \xff\xc0"))
    sample("420-trailing.jpg", y420 + bytes(range(100)))
    with open(os.path.join(SAMPLES, "arithmetic.jpg"), "rb") as f:  # written with libjpeg-turbo 2.1.5
        sample("arithmetic.jpg", f.read())
    # Damage over which libjpeg only warns.
    sample("damaged-extraneous.jpg", y420[:i] + b"\x01\x02\x03\x04\x05" + y420[i:])
    d = bytearray(restart)
    d[d.index(b"\xff\xd1") + 1] = 0xD2
    sample("damaged-restart.jpg", bytes(d))
    for name, file in (("baseline", y420), ("progressive", progressive)):
        d = bytearray(file)
        d[len(d) * 3 // 4] ^= 0x10
        sample(f"damaged-{name}.jpg", bytes(d))
    segs, rest = segments(y420)
    refuse("cut-half.jpg", y420[: len(y420) // 2], "truncated")
    refuse("cut-quant-tables.jpg", joined([s for s in segs if s[0] != 0xDB], rest), "corrupt")
    d = bytearray(y420)
    i = d.index(b"\xff\xc0")
    d[i + 1], d[i + 4] = 0xC1, 12
    refuse("12-bit.jpg", bytes(d), "unsupported")


def smooth(w, h):
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    return np.stack([128 + 100 * np.sin(x / 9 + c) * np.cos(y / (5 + c)) for c in range(3)], -1).astype(np.uint8)


JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


def planar(w, h, factors, markers=b"", numbers=(1, 2, 3, 4), wide=False, noisy=True):
    """A file with any sampling factors: each component is encoded as a gray
    JPEG of its own size, and the scans are put behind one frame header."""
    q = [4] * 64
    hmax, vmax = max(f[0] for f in factors), max(f[1] for f in factors)
    frame, scans = struct.pack(">BHHB", 8, h, w, len(factors)), b""
    for c, (fh, fv) in enumerate(factors):
        frame += bytes([numbers[c], 16 * fh + fv, 0])
        pw, ph = -(-w * fh // hmax), -(-h * fv // vmax)
        plane = photo(pw, ph, 1)[..., 0] if noisy else smooth(pw, ph)[..., c]
        g = save(Image.fromarray(plane), "JPEG", qtables=[q])
        i, j = g.index(b"\xff\xc4"), g.index(b"\xff\xda")
        n = struct.unpack(">H", g[j + 2 : j + 4])[0]
        scans += g[i:j] + b"\xff\xda\x00\x08\x01" + bytes([numbers[c], 0]) + b"\x00\x3f\x00" + g[j + 2 + n : -2]
    dqt = b"\xff\xdb\x00\x43\x00" + bytes(q)
    if wide:
        dqt = b"\xff\xdb\x00\x83\x10" + struct.pack(">64H", *q)
    return b"\xff\xd8" + markers + dqt + (b"\xff\xc1" if wide else b"\xff\xc0") + struct.pack(">H", 2 + len(frame)) + frame + scans + b"\xff\xd9"


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


def png_variants():
    w, h = 19, 13
    raw = pack(rng.integers(0, 256, (h, w * 3)), 8)
    z = zlib.compress(raw)
    head, end = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)), chunk(b"IEND", b"")
    magic = b"\x89PNG\r\n\x1a\n"
    colour = chunk(b"gAMA", struct.pack(">I", 22727)) + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"profile")) + chunk(b"sBIT", b"\5\6\5")
    sample("gamma-profile.png", magic + head + colour + chunk(b"IDAT", z) + end)
    parts = b"".join(chunk(b"IDAT", z[i : i + 50]) for i in range(0, len(z), 50))
    sample("several-idat.png", magic + head + parts + chunk(b"IDAT", b"") + end)
    sample("suggested-palette.png", magic + head + chunk(b"PLTE", bytes(48)) + chunk(b"IDAT", z) + end)
    frames = [Image.fromarray(photo(w, h)) for _ in range(2)]
    sample("animated.png", save(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    sample("animated-default.png", save(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True))
    sample("damaged-no-iend.png", magic + head + chunk(b"IDAT", z))
    sample("damaged-short-checksum.png", magic + head + chunk(b"IDAT", z[:-2]) + end)
    refuse("damaged-checksum.png", magic + head + chunk(b"IDAT", z[:-1] + bytes([z[-1] ^ 1])) + end, "corrupt")
    refuse("cut.png", magic + head + chunk(b"IDAT", z[: len(z) // 2]) + end, "truncated")


def gif_variants():
    p = Image.fromarray(photo(21, 17)).quantize(16)
    data = save(p, "GIF", interlace=1)
    n = 3 << ((data[10] & 7) + 1)
    screen, table, rest = data[6:13], data[13 : 13 + n], data[13 + n :]
    image = rest[rest.index(b"\x2c") :]
    comment = b"!\xfe\x05hello\x05world\0"
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    text = b"!\x01\x0c" + bytes(12) + b"\x02hi\0"
    sample("extensions.gif", b"GIF89a" + screen + table + comment + loop + text + b"\0\0" + image)
    sample("87a.gif", b"GIF87a" + screen + table + image)
    # A frame inside the canvas with a palette of its own.
    local = struct.pack("<BHHHHB", 0x2C, 3, 5, 21, 17, 0x80 | 0x40 | (data[10] & 7)) + table + image[10:]
    canvas = struct.pack("<HHBBB", 40, 30, 0x80, 1, 0)
    for dispose in (0, 1, 2, 3):
        control = b"!\xf9\x04" + bytes([dispose << 2 | dispose & 1, 5, 0, 3]) + b"\0"
        sample(f"offset-dispose{dispose}.gif", b"GIF89a" + canvas + bytes([9, 9, 9, 200, 100, 50]) + control + local + b";")
    # A palette of grays in order counts for nothing: indices beyond it are gray too.
    ramp = bytes(v for i in range(16) for v in (i, i, i))
    wide = save(Image.fromarray(photo(21, 17)).convert("L"), "GIF")
    body = wide[13 + 768 :]
    sample("ramp.gif", b"GIF89a" + screen[:4] + bytes([0x83, 0, 0]) + ramp + body[body.index(b"\x2c") :])
    sample("no-trailer.gif", data[:-1])
    sample("no-terminator.gif", data[:-2])
    refuse("cut.gif", data[:-8], "truncated")
    refuse("cut-block.gif", data[:-3], "truncated")


def bmp(w, h, bits, rows, compression=0, info=40, top_down=False, palette=b"", colours=0, masks=b"", offset=None):
    if info == 12:
        head = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", info, w, -h if top_down else h, 1, bits, compression, 0, 0, 0, colours, 0)
        if info > 40:
            head, masks = (head + masks + bytes(84))[:info], b""
    at = 14 + len(head) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at if offset is None else offset) + head + masks + palette + rows


def bmp_variants():
    w, h = 13, 9
    def rows(bits):
        return noise(1, h * ((w * bits + 31) // 32 * 4), 1).tobytes()
    def colours(n, entry=4):
        return b"".join(noise(1, 1).tobytes() + b"\0" * (entry - 3) for _ in range(n))
    def grays(n, step=1):
        return b"".join(bytes([step * i] * 3 + [0]) for i in range(n))
    for info in (40, 52, 56, 64, 108, 124):
        sample(f"header{info}.bmp", bmp(w, h, 24, rows(24), info=info))
    sample("4.bmp", bmp(w, h, 4, rows(4), palette=colours(16)))
    sample("4-colours5.bmp", bmp(w, h, 4, rows(4), palette=colours(5), colours=5))
    sample("top-down.bmp", bmp(w, h, 8, rows(8), palette=colours(256), top_down=True))
    for bits in (1, 4, 8):
        sample(f"os2-{bits}.bmp", bmp(w, h, bits, rows(bits), info=12, palette=colours(1 << bits, 3)))
    sample("os2-24.bmp", bmp(w, h, 24, rows(24), info=12))
    sample("16.bmp", bmp(w, h, 16, rows(16)))
    for name, bits, *m in (("555", 16, 0x7C00, 0x3E0, 0x1F, 0), ("565", 16, 0xF800, 0x7E0, 0x1F, 0), ("bgr", 24, 0xFF0000, 0xFF00, 0xFF, 0), ("bgrx", 32, 0xFF0000, 0xFF00, 0xFF, 0),
                           ("xbgr", 32, 0xFF000000, 0xFF0000, 0xFF00, 0), ("bgxr", 32, 0xFF000000, 0xFF00, 0xFF, 0), ("abgr", 32, 0xFF000000, 0xFF0000, 0xFF00, 0xFF),
                           ("rgba", 32, 0xFF, 0xFF00, 0xFF0000, 0xFF000000), ("bgra", 32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000), ("bgar", 32, 0xFF000000, 0xFF00, 0xFF, 0xFF0000), ("none", 32, 0, 0, 0, 0)):
        sample(f"fields-{name}.bmp", bmp(w, h, bits, rows(bits), 3, 124, masks=struct.pack("<4I", *m)))
    sample("fields-565-header40.bmp", bmp(w, h, 16, rows(16), 3, masks=struct.pack("<3I", 0xF800, 0x7E0, 0x1F)))
    refuse("fields-444.bmp", bmp(w, h, 16, rows(16), 3, 124, masks=struct.pack("<4I", 0xF00, 0xF0, 0xF, 0)), "unsupported")
    # Palettes of grays in order, which Pillow takes for samples of 1 or 8 bits.
    sample("grays256.bmp", bmp(w, h, 8, rows(8), palette=grays(256)))
    sample("grays2.bmp", bmp(w, h, 1, rows(1), palette=grays(2, 255)))
    sample("8-grays2.bmp", bmp(w, h, 8, rows(8), palette=grays(2, 255), colours=2))
    refuse("4-grays16.bmp", bmp(w, h, 4, rows(4), palette=grays(16)), "unsupported")
    # Run lengths: verbatim, end of line, delta, a run beyond the row.
    codes = b"\x05\x03\x00\x05\x01\x02\x03\x04\x05\x00\x03\x07\x00\x00\x00\x02\x02\x01\x20\x09\x00\x00" + b"\x0d\x11\x00\x00" * (h - 3) + b"\x00\x01"
    sample("rle8.bmp", bmp(w, h, 8, codes, 1, palette=colours(256)))
    sample("rle8-grays2.bmp", bmp(w, h, 8, codes, 1, palette=grays(2, 255), colours=2))
    codes = b"\x05\x31\x00\x05\x12\x34\x50\x00\x03\x72\x00\x00\x00\x02\x02\x01\x20\x9a\x00\x00" + b"\x0d\x1e\x00\x00" * (h - 3) + b"\x00\x01"
    sample("rle4.bmp", bmp(w, h, 4, codes, 2, palette=colours(16), top_down=True))
    refuse("rle8-cut.bmp", bmp(w, h, 8, b"\x0d\x11\x00\x00\x00\x01", 1, palette=colours(256)), "truncated")
    refuse("cut.bmp", bmp(w, h, 24, rows(24)[:-4]), "truncated")


def tiff(pixels, tags, order="<", blocks=None, big=False, tiled=False):
    """A file of one image: tags are {tag: [values]}, all SHORT, the offsets and
    sizes of the blocks (rows of bytes; one by default) excepted."""
    blocks = blocks or [pixels]
    tags = dict(tags)
    where, sizes = (324, 325) if tiled else (273, 279)
    tags[where], tags[sizes] = [0] * len(blocks), [len(b) for b in blocks]
    head = (b"II" if order == "<" else b"MM") + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))
    entry, inline, count, offset = (20, 8, "Q", "Q") if big else (12, 4, "H", "I")
    kind = {where: "I", sizes: "I"}
    values = {t: struct.pack(order + str(len(v)) + kind.get(t, "H"), *v) for t, v in tags.items()}
    at = len(head) + struct.calcsize(order + count) + entry * len(tags) + struct.calcsize(order + offset)
    places = {}
    for t in sorted(tags):
        if len(values[t]) > inline:
            places[t] = at
            at += len(values[t]) + len(values[t]) % 2
    starts = []
    for b in blocks:
        starts.append(at)
        at += len(b) + len(b) % 2
    values[where] = struct.pack(order + str(len(starts)) + "I", *starts)
    out, tail = head + struct.pack(order + count, len(tags)), b""
    for t in sorted(tags):
        out += struct.pack(order + "HH" + offset, t, 4 if t in kind else 3, len(tags[t]))
        if t in places:
            out += struct.pack(order + offset, places[t])
            tail += values[t] + b"\0" * (len(values[t]) % 2)
        else:
            out += values[t].ljust(inline, b"\0")
    return out + bytes(struct.calcsize(offset)) + tail + b"".join(b + b"\0" * (len(b) % 2) for b in blocks)


def tiff_variants():
    w, h = 13, 9
    def tags(bits, samples, photometric, **more):
        known = {"compression": 259, "fill": 266, "orientation": 274, "rows": 278, "planar": 284, "fax": 292, "predictor": 317, "map": 320, "tile": 322, "tile_height": 323, "extra": 338, "format": 339}
        t = {256: [w], 257: [h], 258: [bits] * samples, 262: [photometric], 277: [samples]}
        t.update({known[k]: v if isinstance(v, list) else [v] for k, v in more.items()})
        return t
    def raw(bits, samples):
        return noise(1, h * ((w * samples * bits + 7) // 8), 1).tobytes()
    def narrow(order, kind, scale):
        return (rng.integers(-300, 600, (h, w)) * scale).astype(order + kind).tobytes()
    colours = [int(v) for v in rng.integers(0, 65536, 3 << 8)]
    for bits in (1, 2, 4, 8):
        for photometric in (0, 1):
            sample(f"gray{bits}-{photometric}.tiff", tiff(raw(bits, 1), tags(bits, 1, photometric)))
        sample(f"palette{bits}.tiff", tiff(raw(bits, 1), tags(bits, 1, 3, map=colours[: 3 << bits])))
    sample("reversed-bits.tiff", tiff(raw(1, 1), tags(1, 1, 1, fill=2)))
    for order, name in (("<", ""), (">", "-big-endian")):
        gray16 = (rng.integers(0, 600, (h, w))).astype(order + "u2").tobytes()
        sample(f"gray16{name}.tiff" if name else "gray16-raw.tiff", tiff(gray16, tags(16, 1, 1), order))
        sample(f"signed16{name}.tiff", tiff(narrow(order, "i2", 1), tags(16, 1, 1, format=2), order))
        sample(f"signed32{name}.tiff", tiff(narrow(order, "i4", 1), tags(32, 1, 1, format=2), order))
        sample(f"float{name}.tiff", tiff(narrow(order, "f4", 0.7), tags(32, 1, 1, format=3), order))
        sample(f"rgb16{name}.tiff", tiff(raw(16, 3), tags(16, 3, 2), order))
        steps = rng.integers(0, 65536, (h, w, 3)).astype(order + "u2")
        sample(f"rgb16-predictor{name}.tiff", tiff(zlib.compress(steps.tobytes()), tags(16, 3, 2, compression=8, predictor=2), order))
    sample("gray16-white-is-zero.tiff", tiff(raw(16, 1), tags(16, 1, 0)))
    sample("unsigned32.tiff", tiff(raw(32, 1), tags(32, 1, 1)))
    for extra in (0, 2):
        sample(f"gray-extra{extra}.tiff", tiff(raw(8, 2), tags(8, 2, 1, extra=extra)))
        sample(f"palette-extra{extra}.tiff", tiff(raw(8, 2), tags(8, 2, 3, extra=extra, map=colours)))
        sample(f"rgb-extra{extra}0.tiff", tiff(raw(8, 5), tags(8, 5, 2, extra=[extra, 0])))
    for extra in (0, 1, 2):
        sample(f"rgb16-extra{extra}.tiff", tiff(raw(16, 4), tags(16, 4, 2, extra=extra)))
    sample("rgb-extra-unsaid.tiff", tiff(raw(8, 4), tags(8, 4, 2)))
    sample("rgb-associated-extra.tiff", tiff(raw(8, 5), tags(8, 5, 2, extra=[1, 0])))
    sample("cmyk.tiff", tiff(raw(8, 4), tags(8, 4, 5)))
    sample("cmyk16.tiff", tiff(raw(16, 4), tags(16, 4, 5)))
    sample("cmyk-extra.tiff", tiff(raw(8, 5), tags(8, 5, 5, extra=0)))
    a = noise(w, h)
    strips = [zlib.compress(a[y : y + 4].tobytes()) for y in range(0, h, 4)]
    sample("strips.tiff", tiff(None, tags(8, 3, 2, compression=32946, rows=4), blocks=strips))
    sample("bigtiff.tiff", tiff(None, tags(8, 3, 2, compression=8, rows=4), blocks=strips, big=True))
    sample("planes.tiff", tiff(None, tags(8, 3, 2, planar=2), blocks=[a[..., c].tobytes() for c in range(3)]))
    sample("planes-strips.tiff", tiff(None, tags(8, 3, 2, planar=2, rows=5, compression=8), blocks=[zlib.compress(a[y : y + 5, :, c].tobytes()) for c in range(3) for y in (0, 5)]))
    for order in (2, 3, 4, 5, 6, 7, 8):
        sample(f"orientation{order}.tiff", tiff(a.tobytes(), tags(8, 3, 2, orientation=order)))
    w, h = 37, 21
    b = np.zeros((32, 48, 3), np.uint8)
    b[:h, :w] = photo(w, h)
    tiles = [b[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16, 32)]
    sample("tiles.tiff", tiff(None, tags(8, 3, 2, tile=16, tile_height=16), blocks=tiles, tiled=True))
    sample("tiles-deflate.tiff", tiff(None, tags(8, 3, 2, tile=16, tile_height=16, compression=8), blocks=[zlib.compress(t) for t in tiles], tiled=True))
    p = Image.fromarray(b[:h, :w])
    sample("lzw-predictor.tiff", save(p, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}))
    sample("pages.tiff", save(p, "TIFF", save_all=True, append_images=[p.rotate(180)], compression="tiff_lzw"))
    fax = p.convert("1")
    sample("g3.tiff", save(fax, "TIFF", compression="group3"))
    # The floating point predictor: bytes of a row by significance, then differences.
    f = rng.normal(128, 90, (h, w)).astype("<f4")
    planes = np.ascontiguousarray(f[..., None].view(np.uint8).reshape(h, w, 4)[..., ::-1].transpose(0, 2, 1)).reshape(h, 4 * w)
    steps = np.diff(planes.astype(np.int16), axis=1, prepend=0).astype(np.uint8)
    sample("float-predictor.tiff", tiff(zlib.compress(steps.tobytes()), tags(32, 1, 1, format=3, compression=8, predictor=3)))
    # What no decoder here knows.
    sample("unsupported-jpeg.tiff", save(p, "TIFF", compression="jpeg"))
    sample("unsupported-ycbcr.tiff", save(p.convert("YCbCr"), "TIFF"))
    sample("unsupported-lab.tiff", tiff(noise(w, h).tobytes(), tags(8, 3, 8)))
    sample("unsupported-zstd.tiff", save(p, "TIFF", compression="zstd"))
    sample("unsupported-lzma.tiff", save(p, "TIFF", compression="lzma"))
    sample("unsupported-huffman.tiff", save(fax, "TIFF", compression="tiff_ccitt"))
    sample("unsupported-12-bits.tiff", tiff(noise(1, h * ((w * 12 + 7) // 8), 1).tobytes(), tags(12, 1, 1)))
    sample("unsupported-planes-alpha.tiff", tiff(None, tags(8, 4, 2, planar=2), blocks=[noise(w, h, 1).tobytes() for _ in range(4)]))
    refuse("associated-gray.tiff", tiff(noise(w, h, 2).tobytes(), tags(8, 2, 1, extra=1)), "unsupported")
    refuse("cut.tiff", tiff(b[:h, :w].tobytes(), tags(8, 3, 2))[:-20], "truncated")


def webp_variants():
    def riff(*chunks):
        body = b"".join(t + struct.pack("<I", len(d)) + d + b"\0" * (len(d) & 1) for t, d in chunks)
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    def u24(*v):
        return b"".join(struct.pack("<I", x)[:3] for x in v)
    frame = Image.fromarray(np.dstack([photo(21, 17), noise(21, 17, 1)]), "RGBA")
    for name, kw in (("lossy", {"quality": 80}), ("lossless", {"lossless": True, "exact": True})):
        body = save(frame, "WEBP", **kw)[12:]
        if body[:4] == b"VP8X":
            body = body[18:]
        anmf = u24(2, 3, 20, 16, 100) + b"\0" + body
        sample(f"frame-{name}.webp", riff((b"VP8X", b"\x12\0\0\0" + u24(33, 28)), (b"ANIM", b"\x40\x80\xc0\xff\0\0"), (b"ANMF", anmf)))
    p = Image.fromarray(photo(21, 17))
    sample("extended.webp", save(p, "WEBP", quality=50, icc_profile=b"profile" * 9, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", xmp=b"<x/>"))
    sample("palette.webp", save(p.quantize(5), "WEBP", lossless=True, quality=100, method=6))
    sample("quality0.webp", save(p, "WEBP", quality=0))
    refuse("cut.webp", save(p, "WEBP", quality=80)[:-30], "truncated")


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


IMAGENET = "imagenet-samples/imagenet-samples-00000.tar"
CIFAR = ("cifar10/cifar10-test-00000.tar", "cifar10/cifar10-test-00001.tar")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def tensor(a):
    """ToTensor and Normalize: [h, w, 3] samples to [3, h, w] floats."""
    x = a.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return (x - np.float32(MEAN)[:, None, None]) / np.float32(STD)[:, None, None]


def members(path):
    with tarfile.open(path) as t:
        for m in t.getmembers():
            if m.isfile():
                yield m.name, t.extractfile(m).read()


def real(root):
    """A digest each of an image's pixels, of Resize(256) and CenterCrop(224) of
    it by two filters, and of the tensor of the first."""
    try:
        from torchvision import transforms as T
    except ImportError:
        T = None
    rows = []
    for name, data in members(os.path.join(root, IMAGENET)):
        with Image.open(io.BytesIO(data)) as f:
            im = f.convert("RGB")
        row = [np.array(im)]
        for filter in ("bilinear", "bicubic"):
            row.append(transform(im, shorter=256, crop=(224, 224), filter=filter))
            if T:
                crop = T.Compose([T.Resize(256, T.InterpolationMode(filter)), T.CenterCrop(224)])
                assert (np.array(crop(im)) == row[-1]).all(), name
        row.append(tensor(row[1]))
        if T:
            crop = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize(MEAN, STD)])
            row[-1] = crop(im).numpy()
        rows.append(" ".join(sha(a)[:12] for a in row))
    cifar = {}
    for tar in CIFAR:
        all = hashlib.sha256()
        for _, data in members(os.path.join(root, tar)):
            all.update(rgb(data).tobytes())
        cifar[tar] = all.hexdigest()
    if T:
        dump("real.json", {"tar": IMAGENET, "images": rows, "cifar": cifar, "pillow13": {}})
        return
    with open(os.path.join(HERE, "real.json")) as f:
        known = json.load(f)
    assert known["cifar"] == cifar
    known["pillow13"] = {str(i): row for i, row in enumerate(rows) if row != known["images"][i]}
    dump("real.json", known)


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
    if sys.argv[1:2] == ["real"]:
        real(sys.argv[2])
        sys.exit()
    dump(f"resize-{PIL.__version__.split('.')[0]}.json", {"resize": resizes()})
    if sys.argv[1:] != ["resize"]:
        jpegs(), pngs(), gifs(), bmps(), tiffs(), webps()
        rng = np.random.default_rng(20260102)
        jpeg_variants(), png_variants(), gif_variants(), bmp_variants(), tiff_variants(), webp_variants()
        dump("goldens.json", {"decode": decoded, "refused": refused, "tensor": tensors()})
        if len(sys.argv) > 1:
            shared(sys.argv[1])
