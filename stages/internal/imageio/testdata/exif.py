"""Writes exif.json: small files that say how they have to be turned, in every
way and with every damage thought of, and what Pillow's ImageOps.exif_transpose
makes of each.

    python3 exif.py            (Pillow 13; zlib only besides)

An image is 24×16 gray pixels, six squares of different levels, so that no two of
the eight orientations look alike. A file for which Pillow raises an exception is
recorded as upright.
"""

import base64, hashlib, io, json, struct, sys, warnings, zlib
from PIL import Image, ImageOps
import PIL

warnings.simplefilter("ignore")
HOW = [None, None, *(getattr(Image.Transpose, n) for n in (
    "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"))]
cases = []


def picture():
    m = Image.new("L", (24, 16))
    for i in range(6):
        m.paste(20 + 40 * i, (i % 3 * 8, i // 3 * 8, i % 3 * 8 + 8, i // 3 * 8 + 8))
    return m


def seen(data):
    """The orientation that Pillow takes a file to have."""
    try:
        m = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L")
    except Exception as e:
        return 1, type(e).__name__
    for o in range(1, 9):
        want = picture() if o == 1 else picture().transpose(HOW[o])
        if m.size == want.size and all(abs(a - b) < 9 for a, b in zip(m.tobytes(), want.tobytes())):
            return o, ""
    raise SystemExit("no orientation fits")


def case(name, data):
    o, raises = seen(data)
    c = {"name": name + (f" ({raises})" if raises else ""), "orientation": o, "data": base64.b64encode(data).decode()}
    cases.append(c)


# --- TIFF structures ---------------------------------------------------------

SIZES = {1: "B", 2: "B", 3: "H", 4: "L", 5: "LL", 6: "b", 7: "B", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d", 13: "L", 16: "Q"}


def entry(tag, typ, *values, count=None, raw=None):
    return tag, typ, values, count, raw


def exif(order, *entries, head=None, at=8, n=None, tail=b"\0\0\0\0", gap=b""):
    """A TIFF header and a directory; values that do not fit lie behind it."""
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order] if head is None else head
    out, behind = b"", b""
    start = 8 + len(gap) + 2 + 12 * len(entries) + len(tail)
    for tag, typ, values, count, raw in entries:
        body = raw if raw is not None else struct.pack(order + SIZES[typ] * (len(values) // len(SIZES[typ])), *values)
        count = len(values) // len(SIZES.get(typ, "B")) if count is None else count
        if len(body) > 4:
            body, behind = struct.pack(order + "L", start + len(behind)), behind + body
        out += struct.pack(order + "HHL", tag, typ, count) + body.ljust(4, b"\0")
    n = len(entries) if n is None else n
    return magic + struct.pack(order + "L", at + len(gap)) + gap + struct.pack(order + "H", n) + out + tail + behind


def turned(o, order="<"):
    return exif(order, entry(274, 3, o))


def xmp(o, form='<x tiff:Orientation="%s"/>'):
    return (form % o).encode()


# --- containers --------------------------------------------------------------


def saved(format, **options):
    b = io.BytesIO()
    picture().save(b, format, **options)
    return b.getvalue()


JPEG = saved("jpeg", quality=50, optimize=True)
JPEG = JPEG[:2] + JPEG[20:]  # without JFIF
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\1\0\x48\0\x48\0\0"


def segment(body, marker=0xE1):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments):
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def app1(block):
    return segment(b"Exif\0\0" + block)


def adobe(text):
    return segment(b"http://ns.adobe.com/xap/1.0/\0" + text)


PNG = saved("png")


def chunk(id, body):
    return struct.pack(">L", len(body)) + id + body + struct.pack(">L", zlib.crc32(id + body))


def png(before=b"", after=b""):
    at, end = PNG.index(b"IDAT") - 4, PNG.index(b"IEND") - 4
    return PNG[:at] + before + PNG[at:end] + after + PNG[end:]


def profile(block, digits=None):
    digits = block.hex() if digits is None else digits
    return ("\nexif\n%8d\n" % len(block) + "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + "\n").encode()


def itxt(key, text, flag=0, method=0, lang=b"", name=b""):
    return chunk(b"iTXt", key + b"\0" + bytes([flag, method]) + lang + b"\0" + name + b"\0" + text)


RAW, XML = b"Raw profile type exif", b"XML:com.adobe.xmp"
WEBP = saved("webp", lossless=True)[12:]
WEBP += b"\0" * (len(WEBP) & 1)


def riff(*chunks, flags=0x0C, extended=True):
    body = b"".join(id + struct.pack("<L", len(b)) + b + b"\0" * (len(b) & 1) for id, b in chunks if id != b"VP8L")
    parts = [id for id, b in chunks]
    i = parts.index(b"VP8L")
    body = b""
    for j, (id, b) in enumerate(chunks):
        body += WEBP if j == i else id + struct.pack("<L", len(b)) + b + b"\0" * (len(b) & 1)
    if extended:
        body = b"VP8X" + struct.pack("<L", 10) + bytes([flags, 0, 0, 0, 23, 0, 0, 15, 0, 0]) + body
    return b"RIFF" + struct.pack("<L", 4 + len(body)) + b"WEBP" + body


PIXELS = (b"VP8L", b"")


def tiff(order, *entries):
    data = picture().tobytes()
    all = [entry(256, 3, 24), entry(257, 3, 16), entry(258, 3, 8), entry(259, 3, 1), entry(262, 3, 1), entry(277, 3, 1),
           entry(278, 3, 16), entry(279, 4, len(data)), *entries]
    strips = entry(273, 4, 0)
    size = len(exif(order, *all, strips))
    all = sorted([*all, entry(273, 4, size)], key=lambda e: e[0])
    return exif(order, *all) + data


# --- cases -------------------------------------------------------------------

for order, name in ("<", "little"), (">", "big"):
    for o in range(10):
        case(f"jpeg {name}-endian {o}", jpeg(app1(turned(o, order))))
    for typ in range(19):
        raw = None if typ in SIZES else b"\6\0\0\0" if order == "<" else b"\0\6\0\0"
        values = (6,) * len(SIZES.get(typ, "B")) if len(SIZES.get(typ, "B")) == 1 else (12, 2)
        case(f"jpeg {name}-endian type {typ}", jpeg(app1(exif(order, entry(274, typ, *values, raw=raw)))))
    for o in (1, 2, 3, 4, 5, 6, 7, 8) if order == "<" else (6,):
        case(f"tiff {name}-endian {o}", tiff(order, entry(274, 3, o)))
    case(f"tiff {name}-endian none", tiff(order))
    case(f"tiff {name}-endian xmp bytes", tiff(order, entry(700, 1, *xmp(8))))
    case(f"tiff {name}-endian xmp undefined", tiff(order, entry(700, 7, *xmp(5))))
    case(f"tiff {name}-endian xmp and tag", tiff(order, entry(274, 3, 3), entry(700, 1, *xmp(8))))
    case(f"webp {name}-endian", riff(PIXELS, (b"EXIF", turned(6, order))))
    case(f"png {name}-endian", png(chunk(b"eXIf", turned(7, order))))

six, five = turned(6), turned(5)
none = exif("<", entry(305, 2, *b"sela\0"))
for name, block in {
    "rational 13/2": exif("<", entry(274, 5, 13, 2)),
    "rational 6/0": exif("<", entry(274, 5, 6, 0)),
    "rational 0/0": exif("<", entry(274, 5, 0, 0)),
    "signed rational -6/-1": exif("<", entry(274, 10, -6, -1)),
    "float 6.5": exif("<", entry(274, 11, 6.5)),
    "double NaN": exif("<", entry(274, 12, float("nan"))),
    "signed -6": exif("<", entry(274, 8, -6)),
    "long 65542": exif("<", entry(274, 4, 65542)),
    "no elements": exif("<", entry(274, 3, raw=b"\6\0", count=0)),
    "two elements": exif("<", entry(274, 3, 6, 3)),
    "three elements": exif("<", entry(274, 3, 6, 3, 2)),
    "value behind the end": exif("<", entry(274, 3, raw=struct.pack("<L", 9999), count=3)),
    "value across the end": exif("<", entry(274, 3, raw=struct.pack("<L", 22), count=4)),
    "more elements than bytes": exif("<", entry(274, 3, raw=struct.pack("<L", 8), count=1 << 31)),
    "all elements there can be": exif("<", entry(274, 3, raw=struct.pack("<L", 0), count=(1 << 32) - 1)),
    "several tags": exif("<", entry(271, 2, *b"a camera\0"), entry(274, 3, 8), entry(282, 5, 72, 1)),
    "not in order": exif("<", entry(282, 5, 72, 1), entry(274, 3, 8), entry(271, 2, *b"a camera\0")),
    "twice": exif("<", entry(274, 3, 6), entry(274, 3, 3)),
    "first of an unknown type": exif("<", entry(274, 99, raw=b"\3\0"), entry(274, 3, 6)),
    "first without elements": exif("<", entry(274, 3, raw=b"\3\0", count=0), entry(274, 3, 6)),
    "behind a value outside": exif("<", entry(271, 2, raw=struct.pack("<L", 40), count=30), entry(274, 3, 6)),
    "behind a value too large": exif("<", entry(271, 2, raw=struct.pack("<L", 8), count=999), entry(274, 3, 6)),
    "before a value outside": exif("<", entry(274, 3, 6), entry(282, 2, raw=struct.pack("<L", 40), count=30)),
    "values larger than the block together": exif("<", entry(271, 2, raw=struct.pack("<L", 8), count=40),
                                                  entry(272, 2, raw=struct.pack("<L", 8), count=40), entry(274, 3, 6)),
    "the same value outside twice": exif("<", entry(271, 2, raw=struct.pack("<L", 8), count=40),
                                         entry(271, 2, raw=struct.pack("<L", 8), count=40), entry(274, 3, 6, 1, 1)),
    "fewer entries than stated": exif("<", entry(274, 3, 6), n=7, tail=b""),
    "more entries than stated": exif("<", entry(271, 3, 6), entry(274, 3, 6), n=1),
    "half an entry": exif("<", entry(274, 3, 6), tail=b"")[:-3],
    "no next directory": exif("<", entry(274, 3, 6), tail=b""),
    "no entries": exif("<"),
    "directory behind a gap": exif("<", entry(274, 3, 6), gap=b"123"),
    "directory outside": exif("<", entry(274, 3, 6), at=4000),
    "directory at the end": exif("<", entry(274, 3, 6), at=29),
    "directory in the header": exif("<", entry(274, 3, 6), at=0),
    "header II 0 *": exif("<", entry(274, 3, 6), head=b"II\0*"),
    "header MM * 0": exif(">", entry(274, 3, 6), head=b"MM*\0"),
    "64-bit, little-endian": exif("<", entry(274, 3, 6), head=b"II+\0"),
    "64-bit, big-endian": exif(">", entry(274, 3, 6), head=b"MM\0+"),
    "header of another format": exif("<", entry(274, 3, 6), head=b"IIU\0"),
    "header of mixed order": exif(">", entry(274, 3, 6), head=b"IM\0*"),
    "only a header": b"II*\0",
    "seven bytes": b"II*\0\x08\0\0",
    "eight bytes": b"II*\0\x08\0\0\0",
    "nothing": b"",
    "twice prefixed": b"Exif\0\0" + six,
    "three times prefixed": b"Exif\0\0Exif\0\0" + six,
}.items():
    case("jpeg " + name, jpeg(app1(block)))
    if name in ("no elements", "value behind the end", "nothing", "only a header", "directory outside", "header of another format", "no entries"):
        case(f"jpeg {name}, and xmp", jpeg(app1(block), adobe(xmp(8))))

for name, segments in {
    "behind jfif": (JFIF, app1(six)),
    "damaged behind jfif": (JFIF, app1(b"junk")),
    "of two parts": (app1(six[:13]), app1(six[13:])),
    "two blocks": (app1(six), app1(five)),
    "app1 without prefix": (segment(six),),
    "short prefix": (segment(b"Exif\0" + six),),
    "app2": (segment(b"Exif\0\0" + six, 0xE2),),
    "behind a comment": (segment(b"\xff\xe1 comment", 0xFE), app1(six)),
    "behind padding": (b"\xff\xff\xff", app1(six)),
    "behind junk": (JFIF, b"junk\xff\x00\x01", app1(six)),
    "xmp attribute": (adobe(xmp(6)),),
    "xmp element": (adobe(xmp(6, "<tiff:Orientation>%s</tiff:Orientation>")),),
    "xmp single quotes": (adobe(xmp(6, "tiff:Orientation='%s'")),),
    "xmp 0": (adobe(xmp(0)),),
    "xmp 9": (adobe(xmp(9)),),
    "xmp 10": (adobe(xmp(10)),),
    "xmp of two digits": (adobe(xmp(65)),),
    "xmp no digit, then one": (adobe(b'tiff:Orientation="x" tiff:Orientation="6"'),),
    "xmp twice within": (adobe(b'tiff:Orientation="8" tiff:Orientation="6"'),),
    "xmp cut": (adobe(b'tiff:Orientation="'),),
    "xmp overlapping": (adobe(b'tiff:Orientationtiff:Orientation>5'),),
    "two xmp": (adobe(xmp(6)), adobe(xmp(8))),
    "two xmp, the last without": (adobe(xmp(6)), adobe(b"<x/>")),
    "xmp before exif": (adobe(xmp(6)), app1(turned(3))),
    "exif 1 and xmp": (app1(turned(1)), adobe(xmp(6))),
    "exif 9 and xmp": (app1(turned(9)), adobe(xmp(6))),
    "exif without and xmp": (app1(none), adobe(xmp(6))),
    "exif of another type and xmp": (app1(exif("<", entry(274, 2, *b"6\0"))), adobe(xmp(8))),
}.items():
    case("jpeg " + name, jpeg(*segments))
case("jpeg exif behind the scan", JPEG[:-2] + app1(six) + JPEG[-2:])
case("jpeg bare", JPEG)

zipped = zlib.compress(profile(six))
control = struct.pack(">LLLLLHHBB", 0, 24, 16, 0, 0, 1, 1, 0, 0)
second = struct.pack(">LLLLLHHBB", 1, 24, 16, 0, 0, 1, 1, 0, 0)
frame = chunk(b"fdAT", struct.pack(">L", 2) + zlib.compress(b"".join(b"\0" + picture().tobytes()[24 * y : 24 * y + 24] for y in range(16))))
two, one = chunk(b"acTL", struct.pack(">LL", 2, 0)), chunk(b"acTL", struct.pack(">LL", 1, 0))
for name, parts in {
    "bare": (b"", b""),
    "prefixed": (chunk(b"eXIf", b"Exif\0\0" + six), b""),
    "damaged": (chunk(b"eXIf", b"damaged!"), b""),
    "empty": (chunk(b"eXIf", b""), b""),
    "behind the pixels": (b"", chunk(b"eXIf", six)),
    "twice": (chunk(b"eXIf", six), chunk(b"eXIf", five)),
    "tEXt profile": (chunk(b"tEXt", RAW + b"\0" + profile(six)), b""),
    "tEXt profile behind the pixels": (b"", chunk(b"tEXt", RAW + b"\0" + profile(six))),
    "prefixed profile": (chunk(b"tEXt", RAW + b"\0" + profile(b"Exif\0\0" + six)), b""),
    "profile in capitals": (chunk(b"tEXt", RAW + b"\0" + profile(six).replace(b"ff", b"FF").upper()), b""),
    "profile with spaces": (chunk(b"tEXt", RAW + b"\0" + profile(six, " ".join(six.hex()[i : i + 2] for i in range(0, 52, 2)))), b""),
    "profile with spaces within bytes": (chunk(b"tEXt", RAW + b"\0" + profile(six, " ".join(six.hex()))), b""),
    "profile of no digits": (chunk(b"tEXt", RAW + b"\0" + profile(six, "xyz")), b""),
    "profile of odd length": (chunk(b"tEXt", RAW + b"\0" + profile(six, six.hex()[:-1])), b""),
    "profile of two lines": (chunk(b"tEXt", RAW + b"\0\nexif"), b""),
    "profile without text": (chunk(b"tEXt", RAW), b""),
    "zTXt profile": (chunk(b"zTXt", RAW + b"\0\0" + zipped), b""),
    "zTXt profile by another method": (chunk(b"zTXt", RAW + b"\0\1" + zipped), b""),
    "zTXt profile of damaged zlib": (chunk(b"zTXt", RAW + b"\0\0" + zipped[:9] + b"????" + zipped[13:]), b""),
    "zTXt profile cut": (chunk(b"zTXt", RAW + b"\0\0" + zipped[:-2]), b""),
    "zTXt profile with a wrong checksum": (chunk(b"zTXt", RAW + b"\0\0" + zipped[:-1] + b"?"), b""),
    "zTXt profile that is no zlib": (chunk(b"zTXt", RAW + b"\0\0none"), b""),
    "zTXt profile without text": (chunk(b"zTXt", RAW), b""),
    "zTXt too large": (chunk(b"zTXt", RAW + b"\0\0" + zlib.compress(profile(six) + bytes(1 << 21), 9)), b""),
    "iTXt profile": (itxt(RAW, profile(six)), b""),
    "iTXt compressed profile": (itxt(RAW, zipped, 1), b""),
    "iTXt by another method": (itxt(RAW, zipped, 1, 1), b""),
    "iTXt uncompressed by another method": (itxt(RAW, profile(six), 0, 1), b""),
    "iTXt cut": (chunk(b"iTXt", RAW + b"\0\0\0en"), b""),
    "profile and chunk": (chunk(b"tEXt", RAW + b"\0" + profile(six)), chunk(b"eXIf", five)),
    "profile and empty chunk": (chunk(b"tEXt", RAW + b"\0" + profile(six)), chunk(b"eXIf", b"")),
    "iTXt xmp": (itxt(XML, xmp(6), 0, 0, b"en", b"xmp"), b""),
    "iTXt compressed xmp": (itxt(XML, zlib.compress(xmp(6)), 1), b""),
    "iTXt xmp behind the pixels": (b"", itxt(XML, xmp(6))),
    "iTXt xmp of no UTF-8": (itxt(XML, xmp(6) + b"\xff"), b""),
    "tEXt xmp": (chunk(b"tEXt", XML + b"\0" + xmp(6)), b""),
    "zTXt xmp": (chunk(b"zTXt", XML + b"\0\0" + zlib.compress(xmp(6))), b""),
    "empty chunk and xmp": (chunk(b"eXIf", b""), itxt(XML, xmp(6))),
    "damaged chunk and xmp": (chunk(b"eXIf", b"damaged!"), itxt(XML, xmp(6))),
    "profile without and xmp": (chunk(b"tEXt", RAW + b"\0" + profile(none)), itxt(XML, xmp(6))),
    "two xmp": (itxt(XML, xmp(6)), itxt(XML, xmp(3))),
    "two xmp, the last empty": (itxt(XML, xmp(6)), itxt(XML, b"")),
    "animation, behind its first frame": (two + chunk(b"fcTL", control), chunk(b"eXIf", six) + chunk(b"fcTL", second) + frame),
    "animation, behind its second frame": (two + chunk(b"fcTL", control), chunk(b"fcTL", second) + frame + chunk(b"eXIf", six)),
    "animation of one frame, behind it": (one + chunk(b"fcTL", control), chunk(b"eXIf", six)),
    "animation with an image of its own": (one, chunk(b"fcTL", control) + frame.replace(b"\0\0\0\2", b"\0\0\0\1") + chunk(b"eXIf", six)),
}.items():
    case("png " + name, png(*parts))

for name, args in {
    "bare": dict(chunks=(PIXELS,)),
    "simple, behind": dict(chunks=(PIXELS, (b"EXIF", six)), extended=False),
    "no flags": dict(chunks=(PIXELS, (b"EXIF", six), (b"XMP ", xmp(8))), flags=0),
    "flag of xmp alone": dict(chunks=(PIXELS, (b"EXIF", six), (b"XMP ", xmp(8))), flags=4),
    "before the pixels": dict(chunks=((b"EXIF", six), PIXELS)),
    "twice": dict(chunks=(PIXELS, (b"EXIF", six), (b"EXIF", five))),
    "prefixed": dict(chunks=(PIXELS, (b"EXIF", b"Exif\0\0" + six))),
    "damaged": dict(chunks=(PIXELS, (b"EXIF", b"damaged!"))),
    "damaged, and xmp": dict(chunks=(PIXELS, (b"EXIF", b"damaged!"), (b"XMP ", xmp(8)))),
    "empty, and xmp": dict(chunks=(PIXELS, (b"EXIF", b""), (b"XMP ", xmp(8)))),
    "xmp": dict(chunks=(PIXELS, (b"XMP ", xmp(8)))),
    "without, and xmp": dict(chunks=(PIXELS, (b"EXIF", none), (b"XMP ", xmp(4)))),
    "odd length": dict(chunks=(PIXELS, (b"ODD ", b"odd"), (b"EXIF", six + b"\0"))),
}.items():
    case("webp " + name, riff(*args.pop("chunks"), **args))

for name, entries in {
    "rational": [entry(274, 5, 6, 1)],
    "float": [entry(274, 11, 8.0)],
    "bytes": [entry(274, 1, 6)],
    "9": [entry(274, 3, 9)],
    "9 and xmp": [entry(274, 3, 9), entry(700, 1, *xmp(8))],
    "two elements": [entry(274, 3, 6, 3)],
    "text xmp": [entry(700, 2, *xmp(8))],
    "no elements, and xmp": [entry(274, 3, raw=b"\6\0", count=0), entry(700, 1, *xmp(8))],
}.items():
    case("tiff " + name, tiff("<", *entries))

for format in "gif", "bmp":
    case(format, saved(format))

# What a turn makes of an image whose bytes count up, as a digest of the pixels.
turns = []
for w, h in (1, 1), (5, 1), (1, 7), (3, 2), (32, 32), (33, 31), (70, 101), (257, 64):
    pixels = bytes((i * 7 + i // 251) & 255 for i in range(3 * w * h))
    m = Image.frombytes("RGB", (w, h), pixels)
    for o in range(1, 9):
        t = m if o == 1 else m.transpose(HOW[o])
        turns.append({"width": w, "height": h, "orientation": o, "sha256": hashlib.sha256(t.tobytes()).hexdigest()})

with open(sys.argv[1] if len(sys.argv) > 1 else "exif.json", "w") as f:
    f.write('{"pillow": "%s",\n"cases": [\n' % PIL.__version__)
    f.write(",\n".join(json.dumps(c) for c in cases) + '\n],\n"turns": [\n')
    f.write(",\n".join(json.dumps(t) for t in turns) + "\n]}\n")
