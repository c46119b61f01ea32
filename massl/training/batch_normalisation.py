"""Batch normalisations that an exporter folded into convolutions, made fit for training again."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def spread_normalisation(backbone: nn.Module, images: Tensor) -> None:
    """Gives batch normalisations that were folded into convolutions the statistics of `images`, in place.

    In evaluation the network computes what it did before. In training, where a batch's own statistics take the place
    of the running ones, it now does so too, as far as a batch is like `images`.

    Args:
        backbone: a network with the weights that `read_initial` found in an `.onnx`.
        images: float `[n, 3, S, S]`, normalised, a few hundred that it is going to be trained on.
    """
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)  # the latter where several GPUs train together
    inputs: dict[nn.BatchNorm2d | nn.SyncBatchNorm, Tensor] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, kinds)
        inputs[module] = torch.stack(torch.var_mean(given[0].float(), (0, 2, 3)))

    found = [module for module in backbone.modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_pre_hook(note) for module in found]
    training = backbone.training
    backbone.eval()(images)
    backbone.train(training)
    for hook in hooks:
        hook.remove()
    for module, (variance, mean) in inputs.items():
        assert module.running_mean is not None
        assert module.running_var is not None
        # y = gain · x + offset, as it was, through other statistics.
        gain = module.weight / (module.running_var + module.eps).sqrt()
        offset = module.bias - gain * module.running_mean
        module.weight.copy_(gain * (variance + module.eps).sqrt())
        module.bias.copy_(offset + gain * mean)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
