"""Times torchvision on Pillow images against BenchmarkSteps, on one core.

    go test -c -o augment.test . && taskset -c 1 python testdata/bench.py ./augment.test [ROUNDS]

The two take turns, ROUNDS times (10), and every image counts with its best
time, so that other load on the machine shows less. The last three steps draw,
32 times each.
"""

import re
import subprocess
import sys
import time

import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F

from goldens import smooth

torch.set_num_threads(1)
binary, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
jitter = T.ColorJitter(0.4, 0.4, 0.4, 0.4)


def steps():
    """Yields a name, the side of the result, and a function for each image."""
    for side, width, height in [(32, 32, 32), (224, 500, 375)]:
        im, whole = (Image.fromarray(smooth(w, h, None)) for w, h in [(side, side), (width, height)])
        everything = T.RandomResizedCrop(side, (1, 1))
        for name, f in {
            "gray": lambda: F.to_grayscale(im, 3),
            "brightness": lambda: F.adjust_brightness(im, 1.3),
            "contrast": lambda: F.adjust_contrast(im, 0.7),
            "saturation": lambda: F.adjust_saturation(im, 1.3),
            "hue": lambda: F.adjust_hue(im, 0.2),
            "flip": lambda: F.hflip(im),
            "rotate/nearest": lambda: F.rotate(im, 8),
            "rotate/bilinear": lambda: F.rotate(im, 8, T.InterpolationMode.BILINEAR),
        }.items():
            yield f"{side}/{name}", side, [f]
        for name, t in {
            "crop": [T.RandomResizedCrop(side)],
            "jitter": [everything, jitter],
            "reference": [T.RandomResizedCrop(side), T.RandomGrayscale(0.2), jitter, T.RandomHorizontalFlip()],
        }.items():
            yield f"{side}/{name}", side, [lambda seed=seed, t=T.Compose(t): seeded(seed, t, whole) for seed in range(32)]


def seeded(seed, transform, im):
    torch.manual_seed(seed)
    return transform(im)


def times(f, n=5):
    for _ in range(n):
        start = time.perf_counter()
        f()
        yield time.perf_counter() - start


best = {}
for _ in range(rounds):
    for name, _, images in steps():
        for i, f in enumerate(images):
            best[name, i] = min(best.get((name, i), 9), *times(f))
    out = subprocess.run([binary, "-test.run=none", "-test.bench=Steps", "-test.cpu=1", "-test.benchtime=100ms"],
                         check=True, capture_output=True, text=True).stdout
    for name, rate in re.findall(r"^BenchmarkSteps/(\S+)\s.*?([\d.]+) images/s", out, re.M):
        best[name] = min(best.get(name, 9), 1 / float(rate))
print(f"{'':22} {'torchvision':>12} {'augment':>12} images/s, ratio, ns per pixel")
for name, side, images in steps():
    a, b = sum(best[name, i] for i in range(len(images))) / len(images), best[name]
    print(f"{name:22} {1 / a:12.0f} {1 / b:12.0f} {a / b:17.2f} {b * 1e9 / side / side:13.2f}")
