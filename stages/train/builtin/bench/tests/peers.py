#!/usr/bin/env python3
"""PyTorch's training step on the CPU, told over stdin what to do.

    python peers.py [channels-last]

Each line of stdin is a request and each line of stdout its answer, both JSON:

    {"do": "open", "network": N, "size": S, "batch": B, "heads": T, "clusters": K, "threads": n}
                             the network with random weights, its number of parameters and the threads in use
    {"do": "steps", "count": n}   seconds of each step by the clock and of all threads, and the last loss
    {"do": "memory"}              bytes resident at most, so far

A step is forward, the mean of the heads' cross-entropies, backward, and SGD with momentum and weight decay.
channels-last lays images and weights out as [N, H, W, C].
"""

import json
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

MOMENTUM, DECAY, RATE = 0.9, 1e-4, 0.01


def conv(i, o, kernel, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o))


class Block(nn.Module):
    """The basic block of He et al. 2016, option B."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.first, self.second = conv(i, o, 3, stride), conv(o, o, 3)
        self.shortcut = conv(i, o, 1, stride) if stride != 1 or i != o else nn.Identity()

    def forward(self, x):
        y = self.second(F.relu(self.first(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)


def trunk(name):
    if name == "resnet-s":
        return nn.Sequential(conv(3, 64, 3, 2), nn.ReLU(True), Block(64, 64, 1), Block(64, 128, 2), Block(128, 256, 2)), 256
    if name == "resnet-18":
        layers, i = [conv(3, 64, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)], 64
        for o, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Block(i, o, stride), Block(o, o, 1)]
            i = o
        return nn.Sequential(*layers), 512
    if name == "alexnet-s":
        layers, i = [], 3
        for at, o in enumerate((64, 96, 128, 128, 256)):
            layers += [conv(i, o, 3), nn.ReLU(True)] + ([nn.MaxPool2d(2)] if at in (0, 1, 4) else [])
            i = o
        return nn.Sequential(*layers), 256
    raise ValueError(f"no network {name}")


class Network(nn.Module):
    def __init__(self, name, heads, clusters):
        super().__init__()
        self.trunk, width = trunk(name)
        self.heads = nn.ModuleList(nn.Linear(width, clusters) for _ in range(heads))

    def forward(self, x):
        x = self.trunk(x).mean((2, 3))
        return [head(x) for head in self.heads]


class Peer:
    def __init__(self, last):
        self.layout = torch.channels_last if last else torch.contiguous_format

    def open(self, r):
        torch.set_num_threads(r["threads"])
        torch.manual_seed(1)
        self.net = Network(r["network"], r["heads"], r["clusters"]).to(memory_format=self.layout)
        weights = [p for p in self.net.parameters() if p.dim() > 1]
        others = [p for p in self.net.parameters() if p.dim() <= 1]
        self.sgd = torch.optim.SGD([{"params": weights, "weight_decay": DECAY}, {"params": others}], RATE, MOMENTUM)
        self.x = torch.randn(r["batch"], 3, r["size"], r["size"]).contiguous(memory_format=self.layout)
        self.y = torch.randint(r["clusters"], (r["heads"], r["batch"]))
        return {"package": "torch " + torch.__version__, "threads": torch.get_num_threads(),
                "parameters": sum(p.numel() for p in self.net.parameters())}

    def steps(self, r):
        wall, cpu = [], []
        for _ in range(r["count"]):
            start, used = time.perf_counter(), time.process_time()
            self.sgd.zero_grad(set_to_none=True)
            loss = sum(F.cross_entropy(z, y) for z, y in zip(self.net(self.x), self.y)) / len(self.y)
            loss.backward()
            self.sgd.step()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        return {"wall": wall, "cpu": cpu, "loss": loss.item()}

    def memory(self, _):
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main():
    peer = Peer("channels-last" in sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, request["do"])(request)
        except Exception as error:  # the program that asks decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
