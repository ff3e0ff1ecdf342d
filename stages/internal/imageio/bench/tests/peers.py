#!/usr/bin/env python3
"""One way of turning image files into tensors, as its users write it, told over stdin what to do.

    python peers.py NAME

Each line of stdin is a request and each line of stdout its answer, both JSON:

    {"do": "hello"}                                  its packages
    {"do": "open", "folder": F, "shorter": 256, "crop": 224, "filter": "bilinear", "mean": M, "std": S}
                                                     reads the files of F in the order of their names
    {"do": "pixels", "to": FILE}                     writes uint8 [N, crop, crop, 3]; the files it cannot read
    {"do": "round", "images": [I, ...]}              CPU seconds for these images, and for each step

shorter and crop are torchvision's Resize(int) and CenterCrop; shorter 0 resizes nothing. A round gives float32
[3, crop, crop], (x/255 - mean)/std. An answer with "error" says what a peer cannot do.
"""

import io
import json
import os
import pathlib
import sys
import time
import warnings

try:
    import numpy as np
except ImportError as error:
    MISSING = str(error)
else:
    MISSING = None


def geometry(width, height, shorter, crop):
    """torchvision's sizes: of the scaled image, and the window of it that is kept."""
    if shorter and width <= height:
        width, height = shorter, shorter * height // width
    elif shorter:
        width, height = shorter * width // height, shorter
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return (width, height), (left, top, left + crop, top + crop)


class NumPy:
    """Normalises uint8 [H, W, 3] with NumPy."""

    def configure(self, shorter, crop, filter, mean, std):
        self.shorter, self.crop, self.filter = shorter, crop, filter
        self.mean = np.array(mean, np.float32).reshape(3, 1, 1)
        self.std = np.array(std, np.float32).reshape(3, 1, 1)

    def normalise(self, pixels):
        x = np.array(pixels.transpose(2, 0, 1), np.float32, order="C")
        x /= 255
        x -= self.mean
        x /= self.std
        return x

    def uint8(self, pixels):
        return pixels


class Pillow(NumPy):
    """Image.open, convert, resize, crop; draft has libjpeg decode at a fraction of the size."""

    draft = False

    def __init__(self):
        from PIL import Image, features

        self.image = Image
        self.package = f"Pillow {Image.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo')}"

    def decode(self, data):
        im = self.image.open(io.BytesIO(data))
        if self.draft:
            im.draft("RGB", geometry(*im.size, self.shorter, self.crop)[0])
        return im.convert("RGB")

    def resize(self, im):
        size, window = geometry(*im.size, self.shorter, self.crop)
        im = im.resize(size, getattr(self.image, self.filter.upper())) if size != im.size else im
        return np.asarray(im.crop(window))


class PillowDraft(Pillow):
    draft = True


class Torchvision(Pillow):
    """The transforms of torchvision's examples, on Pillow."""

    def __init__(self):
        super().__init__()
        import torch
        import torchvision

        torch.set_num_threads(1)
        self.torch, self.transforms = torch, torchvision.transforms
        self.package = f"torchvision {torchvision.__version__}, {self.package}"

    def configure(self, shorter, crop, filter, mean, std):
        super().configure(shorter, crop, filter, mean, std)
        t = self.transforms
        steps = [t.Resize(shorter, t.InterpolationMode[filter.upper()])] if shorter else []
        self.scale = t.Compose([*steps, t.CenterCrop(crop)])
        self.finish = t.Compose([t.ToTensor(), t.Normalize(mean, std)])

    def resize(self, im):
        return self.scale(im)

    def normalise(self, im):
        return self.finish(im)

    def uint8(self, im):
        return np.asarray(im)


class TorchvisionTensor(Torchvision):
    """decode_jpeg, and transforms of tensors instead of Pillow's images."""

    def __init__(self):
        super().__init__()
        import torchvision.io

        self.io = torchvision.io
        # Nobody writes to the tensor of a file's bytes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def configure(self, shorter, crop, filter, mean, std):
        if filter not in ("bilinear", "bicubic"):
            raise ValueError(f"no antialiased {filter} for tensors")
        super().configure(shorter, crop, filter, mean, std)
        t = self.transforms
        steps = [t.Resize(shorter, t.InterpolationMode[filter.upper()], antialias=True)] if shorter else []
        self.scale = t.Compose([*steps, t.CenterCrop(crop)])
        self.finish = t.Compose([t.ConvertImageDtype(self.torch.float32), t.Normalize(mean, std)])

    def decode(self, data):
        if data[:2] != b"\xff\xd8":  # only the steps after it are of interest then
            pixels = np.array(super().decode(data)).transpose(2, 0, 1).copy()
            return self.torch.from_numpy(pixels)
        encoded = self.torch.from_numpy(np.frombuffer(data, np.uint8))
        return self.io.decode_jpeg(encoded, mode=self.io.ImageReadMode.RGB)

    def uint8(self, x):
        return x.permute(1, 2, 0).numpy()


class OpenCV(NumPy):
    """imdecode and resize, whose filters are not antialiased but for INTER_AREA, which stands for box."""

    def __init__(self):
        import cv2

        cv2.setNumThreads(1)
        self.cv2 = cv2
        self.filters = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC,
                        "box": cv2.INTER_AREA, "lanczos": cv2.INTER_LANCZOS4}
        self.package = f"OpenCV {cv2.__version__}"

    def decode(self, data):
        flags = self.cv2.IMREAD_COLOR | self.cv2.IMREAD_IGNORE_ORIENTATION
        return self.cv2.cvtColor(self.cv2.imdecode(np.frombuffer(data, np.uint8), flags), self.cv2.COLOR_BGR2RGB)

    def resize(self, im):
        size, (left, top, right, bottom) = geometry(im.shape[1], im.shape[0], self.shorter, self.crop)
        if size != im.shape[1::-1]:
            im = self.cv2.resize(im, size, interpolation=self.filters[self.filter])
        return im[top:bottom, left:right]


class OpenCVArea(OpenCV):
    """INTER_AREA whatever the filter: OpenCV's advice for making images smaller."""

    def configure(self, shorter, crop, filter, mean, std):
        super().configure(shorter, crop, "box", mean, std)


PEERS = {"pillow": Pillow, "pillow-draft": PillowDraft, "torchvision": Torchvision,
         "torchvision-tensor": TorchvisionTensor, "opencv": OpenCV, "opencv-area": OpenCVArea}


class Server:
    """Answers requests with one peer."""

    def __init__(self, name):
        self.peer = PEERS[name]()

    def hello(self):
        return {"package": self.peer.package}

    def open(self, folder, **spec):
        self.files = [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]
        self.peer.configure(**spec)
        return {}

    def pixels(self, to):
        failed = {}
        with open(to, "wb") as file:
            for i, data in enumerate(self.files):
                try:
                    pixels = self.peer.uint8(self.peer.resize(self.peer.decode(data)))
                except Exception as error:  # whatever a library raises for a file it cannot read
                    failed[i] = str(error).splitlines()[0]
                    pixels = np.zeros((self.peer.crop, self.peer.crop, 3), np.uint8)
                file.write(np.ascontiguousarray(pixels).tobytes())
        return {"failed": failed}

    def round(self, images):
        peer, clock, steps = self.peer, time.thread_time_ns, [0, 0, 0]
        wall, cpu = time.perf_counter(), time.process_time()
        for i in images:
            peer.normalise(peer.resize(peer.decode(self.files[i])))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # Once more for the steps, since the clocks themselves take time.
        for i in images:
            start = clock()
            decoded = peer.decode(self.files[i])
            at = clock()
            scaled = peer.resize(decoded)
            then = clock()
            peer.normalise(scaled)
            steps[0] += at - start
            steps[1] += then - at
            steps[2] += clock() - then
        return {"seconds": cpu, "wall": wall,
                "steps": dict(zip(("decode", "resize", "normalise"), (step / 1e9 for step in steps)))}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    server, failed = None, MISSING
    if not failed:
        try:
            server = Server(sys.argv[1])
        except ImportError as error:
            failed = str(error)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("do"))(**request) if server else {"error": failed}
        except (ValueError, KeyError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
