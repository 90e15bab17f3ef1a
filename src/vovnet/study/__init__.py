"""The paper's experiments that are no detectors."""

from vovnet.study.cifar import train_cifar

__all__ = ["train_cifar"]
