"""Times Pillow's Image.resize for BenchmarkPillow: for every line "width height
to_width to_height filter" on standard input, the nanoseconds of one resize of
noise on standard output."""
import sys
import time

import numpy as np
import PIL
from PIL import Image

print(PIL.__version__, flush=True)
images = {}
for line in sys.stdin:
    w, h, x, y, name = line.split()
    size = (int(h), int(w), 3)
    if size not in images:
        images[size] = Image.fromarray(np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8))
    im, to, f = images[size], (int(x), int(y)), getattr(Image, name.upper())
    start = time.perf_counter_ns()
    im.resize(to, f)
    print(time.perf_counter_ns() - start, flush=True)
