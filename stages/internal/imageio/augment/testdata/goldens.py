"""Writes the goldens of package augment.

    python goldens.py           pixels.json and draws.json
    python goldens.py check     compares pixels.json with this Pillow and torchvision

Made with torchvision 0.13.1, PyTorch 1.12.1, Pillow 12.3.0 and NumPy 1.26.4,
Python 3.10. Pillow 13.0.0 with torchvision 0.29.2's functional_pil gives the
same pixels.
"""

import hashlib
import itertools
import json
import os
import sys

import numpy as np
from PIL import Image

try:
    from torchvision.transforms import functional_pil as F
except ImportError:
    from torchvision.transforms import _functional_pil as F

HERE = os.path.dirname(os.path.abspath(__file__))
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4}


def noise(w, h, c):
    """A hash of the index, which the Go test computes as well."""
    x = np.arange(w * h * 3, dtype=np.uint64) + np.uint64(1)
    x = (x * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(0x85EBCA77)) & np.uint64(0xFFFFFFFF)
    return (x >> np.uint64(24)).astype(np.uint8).reshape(h, w, 3)


def smooth(w, h, c):
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x * 255 // w, y * 255 // h, (3 * x + 5 * y) % 256], -1).astype(np.uint8)


def gray(w, h, c):
    return np.repeat(noise(w, h, c)[:, :, :1], 3, axis=2)


def flat(w, h, c):
    return np.broadcast_to(np.array(c, np.uint8), (h, w, 3)).copy()


def colours(w, h, c):
    """All 2^24 colours, 4096 x 4096."""
    i = np.arange(1 << 24)
    return np.stack([i >> 16, i >> 8 & 255, i & 255], -1).astype(np.uint8).reshape(4096, 4096, 3)


KINDS = {"noise": noise, "smooth": smooth, "gray": gray, "flat": flat, "colours": colours}
ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def f32(x):
    return float(np.float32(x))


def digest(case):
    w, h = case["width"], case["height"]
    im = Image.fromarray(KINDS[case["kind"]](w, h, case.get("colour")))
    choices = case["choices"]
    (left, top, right, bottom), size = case.get("crop", (0, 0, w, h)), case.get("size")
    if size:
        im = F.crop(im, top, left, bottom - top, right - left)
        im = im.resize(size, FILTERS[case["filter"]])
    if choices.get("Gray"):
        im = F.to_grayscale(im, 3)
    for a in choices.get("Jitter", []):
        im = ADJUST[a["Op"]](im, f32(a["Factor"]))
    if choices.get("Flip"):
        im = F.hflip(im)
    if "Angle" in choices:
        im = F.rotate(im, f32(choices["Angle"]), FILTERS[case["rotate_filter"]])
    return hashlib.sha256(np.asarray(im).tobytes()).hexdigest()


def cases():
    def case(kind, w, h, choices, **more):
        return {"kind": kind, "width": w, "height": h, "choices": choices, **more}

    def jitter(*ops):
        return {"Jitter": [{"Op": op, "Factor": x} for op, x in ops]}

    # Every colour by every step that looks at colours one by one.
    for turn in [-0.5, -0.1, 0, 0.003, 0.25, 0.5]:
        yield case("colours", 4096, 4096, jitter(("hue", turn)))
    for x in [0.6, 1.3]:
        yield case("colours", 4096, 4096, jitter(("saturation", x)))
    yield case("colours", 4096, 4096, {"Gray": True})

    images = [("noise", 37, 23), ("smooth", 64, 48), ("gray", 31, 17), ("noise", 1, 1), ("noise", 1, 9), ("noise", 8, 1)]
    for image in images:
        yield case(*image, {"Gray": True})
        yield case(*image, {"Flip": True})
        for op in ["brightness", "contrast", "saturation"]:
            for x in [0, 0.1, 0.5, 0.6, 0.99999, 1, 1.00001, 1.1, 1.4, 2, 7.5]:
                yield case(*image, jitter((op, x)))
        for turn in [-0.5, -0.4, -0.2, -0.001, 0, 0.001, 0.1, 0.3, 0.4999, 0.5]:
            yield case(*image, jitter(("hue", turn)))
        for angle in [-45, -30, -10.1, -0.5, 1e-3, 5, 17.3, 44.99, 45]:
            for f in ["nearest", "bilinear"]:
                yield case(*image, {"Angle": angle}, rotate_filter=f)
    for colour in [(0, 0, 0), (255, 255, 255), (255, 0, 0), (1, 2, 3), (127, 128, 128)]:
        for op, x in [("contrast", 0.3), ("contrast", 1.9), ("saturation", 1.7), ("hue", 0.37)]:
            yield case("flat", 5, 4, jitter((op, x)), colour=colour)
    # Weights of every size, among them those whose sums round up to the next level.
    for i in range(40):
        x = 0.6 + 0.02 * i
        yield case("noise", 37, 23, jitter(("contrast", x), ("saturation", 2 - x), ("brightness", x)))

    for order in itertools.permutations([("brightness", 1.31), ("contrast", 0.72), ("saturation", 1.22), ("hue", -0.17)]):
        yield case("noise", 37, 23, {**jitter(*order), "Flip": True})
        yield case("smooth", 64, 48, {**jitter(*order), "Gray": True})

    for i, f in enumerate(["bilinear", "bicubic", "box", "lanczos", "nearest"]):
        for crop in [(0, 0, 90, 70), (13, 7, 67, 53), (40, 30, 42, 31), (5, 3, 37, 35)]:
            yield case("noise", 90, 70, {"Flip": i % 2 == 1}, crop=crop, size=(32, 32), filter=f)
    all_steps = {
        "Gray": False, "Flip": True, "Angle": 8.25,
        **jitter(("hue", 0.2), ("contrast", 1.25), ("brightness", 0.8), ("saturation", 0.7)),
    }
    for f in ["nearest", "bilinear"]:
        yield case("smooth", 300, 200, all_steps, crop=(31, 17, 271, 187), size=(224, 224), filter="bilinear", rotate_filter=f)


def cdf(samples):
    """Some values, and the share of the samples that are no larger."""
    samples = np.sort(np.asarray(samples, np.float64))
    at = np.unique(np.quantile(samples, np.linspace(0.02, 0.98, 25)))
    return {"at": at.tolist(), "below": np.round(np.searchsorted(samples, at, side="right") / len(samples), 6).tolist()}


def draws(n=200_000):
    """What torchvision draws, as distributions."""
    import torch
    from torchvision import transforms as T

    torch.manual_seed(1)
    crops = []
    for w, h, scale, ratio in [
        (500, 375, (0.08, 1), (3 / 4, 4 / 3)),
        (256, 256, (0.2, 1), (3 / 4, 4 / 3)),
        (90, 400, (0.3, 1), (0.5, 2)),
        (37, 500, (0.08, 1), (3 / 4, 4 / 3)),
    ]:
        im = Image.new("L", (w, h))
        p = np.array([T.RandomResizedCrop.get_params(im, scale, ratio) for _ in range(n)])
        top, left, height, width = p.T
        crops.append({
            "width": w, "height": h, "scale": scale, "ratio": ratio,
            "cdf": {"top": cdf(top), "left": cdf(left), "height": cdf(height), "width": cdf(width),
                    "area": cdf(height * width), "ratio": cdf(width / height)},
        })
    jitter = T.ColorJitter(0.4, 0.5, 1.5, 0.1)
    order, *factors = zip(*[jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(n)])
    angles = [T.RandomRotation.get_params([-15, 15]) for _ in range(n)]
    # Where each step stands in the order.
    places = np.argsort(torch.stack(order).numpy(), axis=1)
    names = ["brightness", "contrast", "saturation", "hue"]
    return {
        "crops": crops,
        "factors": {**{name: cdf(v) for name, v in zip(names, factors)}, "angle": cdf(angles)},
        "places": {name: [round(float(np.mean(places[:, i] == k)), 4) for k in range(4)] for i, name in enumerate(names)},
    }


def write(name, value):
    with open(os.path.join(HERE, name), "w") as f:
        if isinstance(value, list):
            f.write("[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in value) + "\n]\n")
        else:
            f.write(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        with open(os.path.join(HERE, "pixels.json")) as f:
            goldens = json.load(f)
        differ = [c for c in goldens if digest(c) != c["sha256"]]
        for c in differ:
            print("differs:", json.dumps(c))
        print(len(goldens) - len(differ), "of", len(goldens), "equal with Pillow", Image.__version__)
        sys.exit(bool(differ))
    write("pixels.json", [{**c, "sha256": digest(c)} for c in cases()])
    write("draws.json", draws())
