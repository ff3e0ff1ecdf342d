"""Trains whole networks with PyTorch, for TestNetworksAgainstPyTorch.

    python networks.py export FOLDER   writes torchvision's ResNet-50, for images of 64 pixels or as many as a third
                                       argument says, and a small vision transformer, for 32, as ONNX files
    python networks.py judge FOLDER    for every FOLDER/*.json, takes the steps that it says and compares

A case's JSON names the network, its settings and its tensors. Beside it lies, little-endian and one after the other,
what the steps began with (.initial, float32, in the tensors' order), what they were fed (.images and .masks, float32,
.labels, int64), what their rectifiers put out (.rectified, float32) and what they ended with (.final, in the tensors'
order, and .momenta of the trained ones, float32). What comes of it is written to .judged, as JSON.
"""

import glob
import json
import os
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

def optional(path, dtype):
    """The values of a file that a network without any lacks."""
    return np.fromfile(path, dtype) if os.path.exists(path) else np.zeros(0, dtype)


class Choices:
    """Rectifiers, and pools behind them, that choose as they are told. Counts where they would have chosen otherwise."""

    def __init__(self, path):
        self.rectified = torch.from_numpy(optional(path, np.float32))
        self.at = self.all = self.turned = 0
        F.relu, F.max_pool2d = self.relu, self.max_pool2d

    def count(self, turned):
        self.all += turned.numel()
        self.turned += int(turned.sum())

    def relu(self, x, inplace=False):
        self.last = self.rectified[self.at:self.at + x.numel()].reshape(x.shape)
        self.at += x.numel()
        self.count((x > 0) != (self.last > 0))
        return x * (self.last > 0)

    def max_pool2d(self, x, kernel_size, stride=None, padding=0, dilation=1, **_):
        how = kernel_size, stride or kernel_size, padding, dilation
        y, chosen = F.max_pool2d_with_indices(self.last, *how)
        there = x.flatten(2).gather(2, chosen.flatten(2)).reshape(y.shape)
        self.count(torch.max_pool2d(x, *how) != there)
        return there


class Masked(nn.Module):
    """Dropout by masks that are given, for one module after the other."""

    values, at = None, 0

    def forward(self, x):
        mask = Masked.values[Masked.at:Masked.at + x.numel()]
        Masked.at += x.numel()
        return x * torch.from_numpy(mask).reshape(x.shape).to(x.dtype)


class Unit(nn.Module):
    """A convolution of alexnet-s."""

    def __init__(self, i, o, pool):
        super().__init__()
        self.conv, self.bn, self.pool = nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), pool

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        return F.max_pool2d(x, 2) if self.pool else x


class AlexNetS(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [3, 64, 96, 128, 128, 256]
        self.features = nn.Sequential(*(Unit(sizes[i], sizes[i + 1], i in (0, 1, 4)) for i in range(5)))

    def forward(self, x):
        return self.features(x).mean((2, 3))


class AlexNetBig(nn.Module):
    """Krizhevsky et al. 2012 in one stream, with BatchNorm."""

    def __init__(self):
        super().__init__()
        layers, i = [], 3
        for o, k, stride, pad, pool in [(96, 11, 4, 2, True), (256, 5, 1, 2, True), (384, 3, 1, 1, False), (384, 3, 1, 1, False), (256, 3, 1, 1, True)]:
            layers += [nn.Conv2d(i, o, k, stride, pad), nn.BatchNorm2d(o), nn.ReLU()] + ([nn.MaxPool2d(3, 2)] if pool else [])
            i = o
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(Masked(), nn.Linear(256 * 36, 4096), nn.ReLU(), Masked(), nn.Linear(4096, 4096), nn.ReLU())

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def transformer():
    net = torchvision.models.VisionTransformer(image_size=32, patch_size=4, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)
    for layer in net.encoder.layers:  # biases of 1e-6 teach nothing
        nn.init.normal_(layer.mlp[0].bias, std=0.1)
    return net


def trunk(name):
    """The network without its last layer, and its number of features."""
    if name == "alexnet-s":
        return AlexNetS(), 256
    if name == "alexnet-big":
        return AlexNetBig(), 4096
    if name == "vision transformer":
        net = transformer()
        net.heads = nn.Identity()
        return net, 64
    net = {"resnet-18": torchvision.models.resnet18, "resnet-50": torchvision.models.resnet50}[name]()
    width, net.fc = net.fc.in_features, nn.Identity()
    return net, width


class Cosine(nn.Module):
    """Cosines with K prototypes, divided by 0.1, of what all heads share."""

    def __init__(self, clusters):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(128, clusters))

    def forward(self, x):
        return F.normalize(x) @ F.normalize(self.weight, dim=0) / 0.1


class Network(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.trunk, width = trunk(case["network"])
        self.projection = nn.Identity()
        if case["head"] == "cosine":
            self.projection = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 128))
        self.heads = nn.ModuleDict({f"head_{i}": Cosine(case["clusters"]) if case["head"] == "cosine" else nn.Linear(width, case["clusters"]) for i in range(case["heads"])})

    def forward(self, x):
        x = self.projection(self.trunk(x))
        return [head(x) for head in self.heads.values()]

    def tensors(self):
        """Parameters and statistics by the names they have in the case."""
        named = {}
        for name, t in self.state_dict(keep_vars=True).items():
            if not name.endswith("num_batches_tracked"):
                named[name.removeprefix("trunk.").removeprefix("heads.")] = t
        return named


def decays(p):
    """Whether weight decay applies: biases, scales and tokens have at most one dimension above 1."""
    return sum(d != 1 for d in p.shape) > 1


def load(case, base, dtype):
    net = Network(case).to(dtype).train()
    named, values, at = net.tensors(), np.fromfile(base + ".initial", np.float32), 0
    if sorted(named) != sorted(t["name"] for t in case["tensors"]):
        raise SystemExit(f"{case['network']}: other tensors than PyTorch's: {sorted(set(named) ^ {t['name'] for t in case['tensors']})}")
    for t in case["tensors"]:
        p = named[t["name"]]
        if list(p.shape) != t["dims"]:
            raise SystemExit(f"{case['network']}: {t['name']} has shape {t['dims']}, PyTorch's {list(p.shape)}")
        p.data.copy_(torch.from_numpy(values[at:at + p.numel()].reshape(t["dims"]).copy()))
        at += p.numel()
    assert at == len(values)
    return net, [named[t["name"]] for t in case["tensors"]]


def train(case, base, dtype):
    """Takes the steps. Returns the losses, the tensors, the momenta of the trained ones, and the choices."""
    net, tensors = load(case, base, dtype)
    parameters = list(net.parameters())
    sgd = torch.optim.SGD([{"params": [p for p in parameters if decays(p)], "weight_decay": case["weight_decay"]},
                           {"params": [p for p in parameters if not decays(p)]}],
                          case["rate"], case["momentum"], nesterov=case["nesterov"])
    steps, batch, size = case["steps"], case["batch"], case["size"]
    images = torch.from_numpy(np.fromfile(base + ".images", np.float32)).reshape(steps, batch, 3, size, size).to(dtype)
    labels = torch.from_numpy(np.fromfile(base + ".labels", np.int64)).reshape(steps, case["heads"], batch)
    Masked.values, Masked.at = optional(base + ".masks", np.float32), 0
    choices = Choices(base + ".rectified")
    losses = []
    for x, y in zip(images, labels):
        each = [F.cross_entropy(z, l) for z, l in zip(net(x), y)]
        sgd.zero_grad(set_to_none=True)
        torch.stack(each).mean().backward()
        if case["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(parameters, case["clip"])
        sgd.step()
        losses += [l.item() for l in each]
    if Masked.at != len(Masked.values) or choices.at != len(choices.rectified):
        raise SystemExit(f"{case['network']}: other rectifiers or dropouts than PyTorch's")
    return losses, tensors, [sgd.state[t]["momentum_buffer"] for t in tensors if t in sgd.state], choices


def distances(names, initial, want, other, got):
    """Norms, for each tensor, of how far PyTorch in float64 moved it and of how far from there the others ended."""
    list, at = [], 0
    for i, (name, w) in enumerate(zip(names, want)):
        w, n = w.detach().reshape(-1), w.numel()
        start = initial[at:at + n].double() if initial is not None else torch.zeros(n, dtype=torch.float64)
        norm = lambda x: float((x - w).norm())
        list.append({"name": name, "elements": n, "size": float(start.norm()), "moved": norm(start), "ours": norm(got[at:at + n].double()),
                     "theirs": norm(other[i].detach().reshape(-1).double())})
        at += n
    assert at == len(got)
    return list


def judge(case, base):
    losses, final, momenta, choices = train(case, base, torch.float64)
    other = train(case, base, torch.float32)
    values = lambda file: torch.from_numpy(np.fromfile(base + file, np.float32))
    result = {"losses": [losses, other[0]], "choices": choices.all, "turned": choices.turned,
              "final": distances([t["name"] for t in case["tensors"]], values(".initial"), final, other[1], values(".final")),
              "momenta": distances([t["name"] for t in case["tensors"] if t["trained"]], None, momenta, other[2], values(".momenta"))}
    with open(base + ".judged", "w") as f:
        json.dump(result, f)


def export(net, path, size, opset):
    torch.onnx.export(net.eval(), (torch.zeros(2, 3, size, size),), path, opset_version=opset,
                      training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, input_names=["images"], output_names=["classes"],
                      dynamic_axes={"images": {0: "batch"}, "classes": {0: "batch"}})


def main(what, folder, size=64):
    torch.manual_seed(1)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if what == "export":
        export(torchvision.models.resnet50(num_classes=10), os.path.join(folder, "resnet-50.onnx"), int(size), 13)
        export(transformer(), os.path.join(folder, "transformer.onnx"), 32, 14)
        return
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path) as f:
            judge(json.load(f), path.removesuffix(".json"))


if __name__ == "__main__":
    main(*sys.argv[1:])
