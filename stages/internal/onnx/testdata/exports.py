"""Writes small exports by PyTorch: a residual network of bottlenecks as ResNet-50
has them, and a vision transformer, so that heads are replaced in files that
other tools wrote.

Made with Python 3.10, torch 1.12.1, numpy 1.26.4:  python exports.py
"""
import os

import torch
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))


class Bottleneck(nn.Module):
    def __init__(self, wide, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or wide != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(wide, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.pool = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Bottleneck(8, 4, 1), Bottleneck(16, 4, 1))
        self.layer2 = nn.Sequential(Bottleneck(16, 8, 2))
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(self.pool(torch.relu(self.bn1(self.conv1(x))))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


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
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        d = 16
        self.patch = nn.Conv2d(3, d, 8, 8)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, d)), nn.Parameter(torch.randn(1, 17, d))
        self.layers, self.norm = nn.Sequential(Layer(d, 2), Layer(d, 4)), nn.LayerNorm(d)
        self.head = nn.Linear(d, 6)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return torch.softmax(self.head(self.norm(self.layers(x))[:, 0]), dim=1)


def export(name, net, opset, training=torch.onnx.TrainingMode.EVAL):
    net.eval()
    torch.onnx.export(
        net, (torch.zeros(2, 3, 32, 32),), os.path.join(HERE, name), opset_version=opset, training=training,
        do_constant_folding=training == torch.onnx.TrainingMode.EVAL, input_names=["images"], output_names=["classes"],
        dynamic_axes={"images": {0: "batch"}, "classes": {0: "batch"}})


if __name__ == "__main__":
    torch.manual_seed(1)
    net = ResNet()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
    export("resnet-9.onnx", net, 9)  # normalisation folded into the convolutions
    export("resnet-13.onnx", net, 13, torch.onnx.TrainingMode.PRESERVE)
    export("transformer-16.onnx", Transformer(), 16)
