"""Writes golden.json and the models beside it: what PyTorch 1.12.1 makes of ten
training steps of three small networks that torch.onnx.export exported.

    python golden.py

Images, labels, weights and dropout masks come from a generator that the Go
test repeats (class Draw), so that only results need be kept.
"""

import json
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 10


class Draw:
    """Numbers in [0, 1) by the linear congruential generator of Numerical
    Recipes (Press et al., section 7.1), its upper 24 bits."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self, *dims):
        out = []
        for _ in range(math.prod(dims)):
            self.state = (1664525 * self.state + 1013904223) % 2**32
            out.append((self.state >> 8) / 2**24)
        return torch.tensor(out, dtype=torch.float64).reshape(dims)


class AlexNet(nn.Module):
    """Overlapping pools, batch normalisation, dropout, two heads."""

    size, drops = 20, [(24,), (16,)]

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(12, momentum=0.3)
        self.fc1 = nn.Linear(48, 24)
        self.fc2 = nn.Linear(24, 16)
        self.heads = nn.ModuleList([nn.Linear(16, 5), nn.Linear(16, 3)])
        self.masks = None

    def drop(self, x, i):
        return F.dropout(x, 0.25, self.training) if self.masks is None else x * self.masks[i]

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 3, 2, ceil_mode=True)
        x = torch.flatten(x, 1)
        x = self.drop(F.relu(self.fc1(x)), 0)
        x = self.drop(F.relu(self.fc2(x)), 1)
        return tuple(h(x) for h in self.heads)


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.down = None
        if stride != 1 or i != o:
            self.down = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class ResNet(nn.Module):
    size, drops = 16, []

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 12, 2))
        self.fc = nn.Linear(12, 6)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return (self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1)),)


class Layer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x):
        n, l, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, l, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5, dim=-1)
        x = x + self.proj((a @ v).transpose(1, 2).reshape(n, l, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    size, drops = 12, []

    def __init__(self):
        super().__init__()
        d = 16
        self.patch = nn.Conv2d(3, d, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, d))
        self.position = nn.Parameter(0.1 * torch.randn(1, 10, d))
        self.layers = nn.Sequential(Layer(d, 2), Layer(d, 4))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return (self.head(self.norm(self.layers(x))[:, 0]),)


def decays(name, p, everything):
    return everything or not (name.endswith(".bias") or "bn" in name or "norm" in name or ".down.1." in name or name == "token")


def export(net, case):
    images = torch.zeros(2, 3, net.size, net.size)
    case["clusters"] = [z.shape[1] for z in net.eval()(images)]
    heads = [f"head_{i}" for i in range(len(case["clusters"]))]
    training = torch.onnx.TrainingMode.TRAINING if case["train"] else torch.onnx.TrainingMode.PRESERVE
    net.train(case["train"])
    torch.onnx.export(
        net, (images,), os.path.join(HERE, case["model"]), opset_version=case["opset"],
        training=training, do_constant_folding=case["fold"], input_names=["images"], output_names=heads,
        dynamic_axes={n: {0: "N"} for n in ["images"] + heads})
    return heads


def digest(t):
    t = t.detach().double().reshape(-1)
    at = [i * (t.numel() - 1) // 7 for i in range(8)]
    return {"norm": t.norm().item(), "at": at, "values": [float("%.9g" % t[i].item()) for i in at]}


def run(make, case):
    torch.manual_seed(case["seed"])
    net = make()
    # PyTorch's export merges initialisers of equal values, so the fresh network's are a case of their own.
    case["heads"] = export(net, case)
    net.train()
    draw, b = Draw(case["seed"]), case["batch"]
    named = dict(net.named_parameters())
    groups = [{"params": [p for n, p in named.items() if decays(n, p, case["decay_all"])], "weight_decay": case["weight_decay"]},
              {"params": [p for n, p in named.items() if not decays(n, p, case["decay_all"])], "weight_decay": 0.0}]
    sgd = torch.optim.SGD([g for g in groups if g["params"]], lr=1.0, momentum=case["momentum"], nesterov=case["nesterov"])
    case["parameters"] = {n: {"dims": list(p.shape), "initial": digest(p)} for n, p in net.state_dict().items() if p.dim() > 0}
    case["losses"], case["correct"] = [], []
    for step in range(STEPS):
        x = (2 * draw(b, 3, net.size, net.size) - 1).float()
        weights = (draw(b) < 0.8).float()
        weights[0] = 1
        net.masks = [((draw(b, *d) >= 0.25).double() / 0.75).float() for d in net.drops] or None
        logits = net(x)
        losses, correct = [], []
        if case["loss"] == "binary":
            y = (draw(b, logits[0].shape[1]) < 0.5).float()
            cell = F.binary_cross_entropy_with_logits(logits[0], y, reduction="none").mean(1)
            losses.append((cell * weights).sum() / weights.sum())
            correct.append((((logits[0] > 0) == (y > 0.5)).float().mean(1) * weights).sum().item())
        else:
            for z in logits:
                y = (draw(b) * z.shape[1]).long()
                losses.append((F.cross_entropy(z, y, reduction="none") * weights).sum() / weights.sum())
                correct.append(((z.argmax(1) == y).float() * weights).sum().item())
        sgd.zero_grad()
        torch.stack(losses).mean().backward()
        if case["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(net.parameters(), case["clip"])
        for g in sgd.param_groups:
            g["lr"] = case["rate"] / (1 + step % 3)
        sgd.step()
        case["losses"].append([l.item() for l in losses])
        case["correct"].append(correct)
    for n, p in net.state_dict().items():
        if p.dim() > 0:
            case["parameters"][n]["final"] = digest(p)
    return case


def main():
    torch.set_num_threads(1)
    plain = dict(fold=True, train=False, loss="cross-entropy", momentum=0.9, nesterov=False, weight_decay=0.0, decay_all=False, clip=0.0, batch=8)
    cases = [
        run(AlexNet, dict(plain, model="alexnet-14.onnx", opset=14, seed=1, train=True, fold=False, weight_decay=1e-2, rate=0.05)),
        run(ResNet, dict(plain, model="resnet-11.onnx", opset=11, seed=2, nesterov=True, weight_decay=1e-2, decay_all=True, rate=0.05)),
        run(ResNet, dict(plain, model="resnet-13.onnx", opset=13, seed=5, momentum=0.0, loss="binary", weight_decay=1e-2, rate=0.1)),
        run(Transformer, dict(plain, model="transformer-16.onnx", opset=16, seed=3, clip=0.5, weight_decay=1e-2, rate=0.05)),
        run(Transformer, dict(plain, model="transformer-12.onnx", opset=12, seed=4, loss="binary", rate=0.05)),
    ]
    with open(os.path.join(HERE, "golden.json"), "w") as f:
        json.dump(cases, f, indent=0)


if __name__ == "__main__":
    main()
