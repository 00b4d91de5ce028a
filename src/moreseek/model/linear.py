"""Linear layers that take the native kernel for training where there is one."""

import torch
from torch import Tensor, nn

from moreseek.native import ops
from moreseek.native.bindings import usable


class Linear(nn.Linear):
    """nn.Linear; without a bias its forward and backward pass are native on a CPU."""

    def reset_parameters(self) -> None:
        """Nothing: ``initialise`` or a checkpoint fills every weight, so that a random one would be drawn in vain."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.bias is None and usable(input, self.weight):
            return ops.linear(input, self.weight)
        return super().forward(input)
