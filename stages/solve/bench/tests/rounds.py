#!/usr/bin/env python3
"""Writes the log-probabilities of consecutive self-labelling rounds on CIFAR-10.

Synthetic matrices do not show what the solver meets in practice, so this makes the
real thing at a size two cores can train: a small ResNet with one linear head of K
clusters. Round 0 is the untrained network, its BatchNorm statistics calibrated on
training-mode batches. Then, round after round: labels by balanced Sinkhorn at
lambda, one epoch of SGD on those labels with random crops and flips, and the
log-probabilities of the whole images in evaluation mode.

    python rounds.py --data ../../../../../shared/data/cifar10 --out DIR --clusters 128 --rounds 3

writes DIR/rounds-0-K128.npy .. DIR/rounds-3-K128.npy, float32 [N, K] in nats, not
multiplied by lambda, rows in the order of the archives' members, and prints one
JSON line per round. The same seed, thread count and library versions on the same
machine give the same files. The class in a member's name is never read.
"""

import argparse
import io
import json
import os
import pathlib
import tarfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
CALIBRATION_BATCHES = 20
PAD = 4  # pixels of the crop's margin


class Block(nn.Module):
    """A basic residual block: two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


def network(clusters):
    """Stem at stride 2, then 64, 128 and 256 channels at 16, 8 and 4 pixels, linear head."""
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        Block(64, 64, 1),
        Block(64, 128, 2),
        Block(128, 256, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, clusters),
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net.to(memory_format=torch.channels_last)


def read_images(folder, limit):
    """The training images as uint8 [N, 3, 32, 32], in the order of the archives' members."""
    images = []
    for archive in sorted(pathlib.Path(folder).glob("cifar10-train-*.tar")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if len(images) == limit:
                    break
                if member.name.endswith(".jpg"):
                    picture = Image.open(io.BytesIO(tar.extractfile(member).read()))
                    images.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    if len(images) < limit:
        raise SystemExit(f"rounds: read images of {folder}: {len(images)} found, {limit} wanted")
    return torch.from_numpy(np.stack(images))


def normalise(pixels):
    pixels = (pixels.float() / 255 - MEAN) / STD
    return pixels.contiguous(memory_format=torch.channels_last)


def augment(pixels, generator):
    """A random crop of the zero-padded image and a random flip, for each image its own."""
    n, _, height, width = pixels.shape
    padded = F.pad(normalise(pixels), (PAD, PAD, PAD, PAD))
    top = torch.randint(2 * PAD + 1, (n, 1), generator=generator)
    left = torch.randint(2 * PAD + 1, (n, 1), generator=generator)
    flip = torch.randint(2, (n, 1), generator=generator).bool()
    across = torch.arange(width).expand(n, width)
    ys = top + torch.arange(height)
    xs = left + torch.where(flip, width - 1 - across, across)
    picked = padded.permute(0, 2, 3, 1)[torch.arange(n).view(n, 1, 1), ys[:, :, None], xs[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # channels last, as the network wants it


def calibrate(net, images, batch, generator):
    """Sets the BatchNorm statistics to the mean over a few augmented batches."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    net.train()
    with torch.no_grad():
        for _ in range(CALIBRATION_BATCHES):
            chosen = torch.randint(len(images), (batch,), generator=generator)
            net(augment(images[chosen], generator))
    for norm in norms:
        norm.momentum = momentum


def evaluate(net, images):
    """Log-probabilities of the whole images in evaluation mode, float32 [N, K]."""
    net.eval()
    with torch.no_grad():
        return torch.cat([F.log_softmax(net(normalise(block)), 1) for block in images.split(500)])


def assign(log_probs, lam, tolerance, cap):
    """Balanced labels by Sinkhorn in the log domain, float64; every iteration is one sweep.

    Returns the labels, the sweeps and the class-marginal L1 error at the last sweep.
    """
    rows, clusters = log_probs.shape
    v = torch.zeros(clusters, dtype=torch.float64)
    labels = torch.empty(rows, dtype=torch.int64)
    for sweep in range(1, cap + 1):
        mass = torch.zeros(clusters, dtype=torch.float64)
        for start in range(0, rows, 512):
            score = log_probs[start : start + 512].double().mul_(lam).add_(v)
            labels[start : start + 512] = score.argmax(1)
            mass += torch.softmax(score, 1).sum(0)
        mass /= rows
        error = (mass - 1 / clusters).abs().sum().item()
        if error <= tolerance:
            break
        v -= torch.log(mass.clamp_min(1e-300) * clusters)
    return labels, sweep, error


def train(net, optimiser, images, labels, batch, generator):
    """One epoch; returns the mean cross-entropy."""
    net.train()
    total = 0.0
    for chosen in torch.randperm(len(images), generator=generator).split(batch):
        loss = F.cross_entropy(net(augment(images[chosen], generator)), labels[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(chosen)
    return total / len(images)


def save(folder, number, log_probs):
    """Renames a complete file into place, so that a reader never meets half of one."""
    path = pathlib.Path(folder) / f"rounds-{number}-K{log_probs.shape[1]}.npy"
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        np.save(file, log_probs.numpy())
    os.replace(part, path)
    return str(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of cifar10-train-*.tar")
    parser.add_argument("--out", required=True, help="folder for the .npy files")
    parser.add_argument("--clusters", type=int, default=128, help="K (default 128)")
    parser.add_argument("--rows", type=int, default=50000, help="images, from the first (default 50000)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs after round 0 (default 3)")
    parser.add_argument("--lambda", dest="lam", type=float, default=25, help="lambda (default 25)")
    parser.add_argument("--tolerance", type=float, default=2e-2, help="L1 error of the labels' solve (default 2e-2)")
    parser.add_argument("--sweeps", type=int, default=200, help="most sweeps of one solve (default 200)")
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate (default 0.05)")
    parser.add_argument("--batch", type=int, default=128, help="batch size (default 128)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--seed", type=int, default=42, help="seed (default 42)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)

    images = read_images(args.data, args.rows)
    net = network(args.clusters)
    optimiser = torch.optim.SGD(net.parameters(), args.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    calibrate(net, images, args.batch, generator)
    for number in range(args.rounds + 1):
        began, report = time.perf_counter(), {"round": number, "rows": args.rows, "clusters": args.clusters}
        if number:
            report["loss"] = train(net, optimiser, images, labels, args.batch, generator)
        log_probs = evaluate(net, images)
        report["file"] = save(args.out, number, log_probs)
        report["network_seconds"] = round(time.perf_counter() - began, 1)
        if number < args.rounds:
            began = time.perf_counter()
            labels, report["sweeps"], report["l1"] = assign(log_probs, args.lam, args.tolerance, args.sweeps)
            report["largest"] = torch.bincount(labels, minlength=args.clusters).max().item()
            report["solve_seconds"] = round(time.perf_counter() - began, 1)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
