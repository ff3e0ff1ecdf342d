"""Exports ResNet-50, a vision transformer and other networks of torchvision
0.13 to the folder given, for TestExports.

    python export.py FOLDER
    SELA_EXPORTS=FOLDER go test -run Exports -v
"""

import os
import sys

import torch
import torchvision

NETWORKS = {
    "resnet50": 13, "vit_b_16": 14, "convnext_tiny": 14, "densenet121": 11, "mobilenet_v3_small": 13,
    "efficientnet_b0": 13, "shufflenet_v2_x1_0": 13, "squeezenet1_1": 12, "regnet_y_400mf": 13, "alexnet": 12, "vgg11_bn": 13,
}

for name, opset in NETWORKS.items():
    net = getattr(torchvision.models, name)().eval()
    torch.onnx.export(
        net, (torch.zeros(1, 3, 224, 224),), os.path.join(sys.argv[1], name + ".onnx"), opset_version=opset,
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, input_names=["images"], output_names=["head_0"],
        dynamic_axes={"images": {0: "N"}, "head_0": {0: "N"}})
