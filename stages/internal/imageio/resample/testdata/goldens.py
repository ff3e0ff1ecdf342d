"""Writes what Pillow's Image.resize makes of generated images, as digests.

    python goldens.py                      # writes pillow-<major>.json beside it
    python goldens.py <count> <seed> FILE  # writes so many random cases, for
    SELA_RESIZE_CASES=FILE go test -run Pillow stages/internal/imageio/resample

Needs NumPy and Pillow; run it with Pillow 12.1, the last that is
HorizontalFirst for every image, and with Pillow 13.
"""
import hashlib
import json
import os
import random
import sys

import numpy as np
import PIL
from PIL import Image

FILTERS = {"nearest": Image.Resampling.NEAREST, "box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def pixels(w, h, kind):
    """Noise, black and white noise (which overshoots most), or a gradient."""
    i = np.arange(3 * w * h, dtype=np.uint32)
    x = i * np.uint32(2654435761)
    x ^= x >> np.uint32(15)
    x *= np.uint32(2246822519)
    x ^= x >> np.uint32(13)
    if kind == "hard":
        x = (x >> np.uint32(20)) % 2 * 255
    elif kind == "smooth":
        x = i // 7
    return Image.fromarray((x % 256).astype(np.uint8).reshape(h, w, 3))


def case(kind, whole, part, to, keep, name):
    """The image of size whole, cut to part, is scaled to to and cut to keep."""
    im = pixels(*whole, kind).crop(part)
    if im.size != tuple(to):
        im = im.resize(to, FILTERS[name])
    digest = hashlib.sha256(im.crop(keep).tobytes()).hexdigest()[:16]
    return {"kind": kind, "whole": whole, "part": part, "to": to, "keep": keep, "filter": name, "digest": digest}


def fixed():
    sizes = [  # whole, to
        ((1, 1), (1, 2)), ((1, 1), (9, 5)), ((1, 300), (1, 7)), ((1, 300), (3, 300)), ((300, 1), (7, 1)), ((300, 1), (300, 3)),
        ((2, 2), (1, 1)), ((3, 2), (64, 63)), ((5000, 3), (7, 3)), ((5000, 3), (7, 5)), ((3, 5000), (3, 7)), ((3, 5000), (5, 7)),
        ((5000, 2), (4999, 2)), ((2, 700), (2, 1400)), ((7, 5), (300, 211)), ((97, 61), (96, 62)), ((97, 61), (97, 17)),
        ((97, 61), (17, 61)), ((61, 200), (60, 20)), ((333, 500), (256, 384)), ((500, 375), (341, 256)), ((640, 480), (64, 48)),
    ]
    for whole, to in sizes:
        w, h = whole
        x, y = to
        for name in FILTERS:
            for kind in ("noise", "hard"):
                yield case(kind, whole, (0, 0, w, h), to, (0, 0, x, y), name)
            yield case("smooth", whole, (w // 7, h // 5, w - w // 9, h - h // 6), to, (x // 3, y // 4, x - x // 5, y - y // 6), name)


def some(count, seed):
    r = random.Random(seed)

    def side(most):
        return max(1, int(most ** r.random()))

    def span(n):
        a, b = sorted(r.sample(range(n + 1), 2))
        return (a, b) if r.random() < 0.6 else (0, n)

    for _ in range(count):
        most = r.choice((40, 300, 300, 1500))
        whole = (side(most), side(most))
        (x0, x1), (y0, y1) = span(whole[0]), span(whole[1])
        to = (side(500), side(500))
        if r.random() < 0.3:
            to = (x1 - x0, to[1]) if r.random() < 0.5 else (to[0], y1 - y0)
        (a0, a1), (b0, b1) = span(to[0]), span(to[1])
        yield case(r.choice(("noise", "hard", "smooth")), whole, (x0, y0, x1, y1), to, (a0, b0, a1, b1), r.choice(list(FILTERS)))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        cases, name = some(int(sys.argv[1]), int(sys.argv[2])), sys.argv[3]
    else:
        major = PIL.__version__.split(".")[0]
        cases, name = fixed(), os.path.join(os.path.dirname(os.path.abspath(__file__)), f"pillow-{major}.json")
    with open(name, "w") as f:
        rows = ",\n".join(json.dumps(c) for c in cases)
        f.write(f'{{"pillow": "{PIL.__version__}", "cases": [\n{rows}\n]}}\n')
