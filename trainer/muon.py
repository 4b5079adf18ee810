"""Muon: momentum whose matrix is replaced by the nearest orthogonal one; and the three parameter groups of a GPT."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainer.presets import TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Source: Keller Jordan's Muon; maps singular values into about 0.7..1.2


def orthogonalize(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """(K, r, c) -> (K, r, c) with singular values near 1, by Newton-Schulz iterations on the whole batch.

    float32 on CPU, where bfloat16 is emulated on most machines (3 times slower); bfloat16 on CUDA.  The result has
    the working dtype.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Orthogonalized Nesterov momentum with decoupled weight decay, for matrices.

    Equal shapes are stacked and updated together: one batched multiplication instead of dozens of small ones.
    Raises: ValueError for a parameter that is not a matrix.
    Source: m <- mu m + g; u = g + mu m; W <- W (1 - lr decay) - lr sqrt(max(1, r/c)) orthogonal(u).
    """

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float = 0.0) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            group["stacks"] = [self._stack(members) for members in _by_shape(group["params"])]

    def _stack(self, members: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """(parameters of one shape, their momentum (K, r, c)); each parameter's state is a view into it."""
        if members[0].ndim != 2:
            raise ValueError(f"Muon takes matrices, got a tensor of shape {tuple(members[0].shape)}")
        buffers = torch.zeros(len(members), *members[0].shape, device=members[0].device)
        for parameter, buffer in zip(members, buffers, strict=True):
            self.state[parameter]["momentum"] = buffer
        return members, buffers

    @torch.no_grad()
    def step(self) -> None:
        """One update; every parameter must have its gradient."""
        for group in self.param_groups:
            lr, mu = group["lr"], group["momentum"]
            for members, buffers in group["stacks"]:
                gradients = torch.stack([parameter.grad for parameter in members])
                buffers.mul_(mu).add_(gradients)
                update = orthogonalize(gradients.add_(buffers, alpha=mu))
                rows, columns = members[0].shape
                torch._foreach_mul_(members, 1 - lr * group["weight_decay"])
                torch._foreach_add_(
                    members, list(update.to(members[0].dtype)), alpha=-lr * max(1.0, rows / columns) ** 0.5
                )


def _by_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    shapes: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    return list(shapes.values())


def optimizers(model: nn.Module, config: TrainConfig) -> tuple[Muon, AdamW]:
    """Muon for the weights of linear layers; AdamW for embedding tables and, with its own rate, for everything else.

    The groups keep their peak learning rate as "peak_lr".
    Raises: ValueError when a trainable tensor is in no group or in two (seen in a published record: a table that
    never moved).
    """
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    taken = {id(tensor) for tensor in matrices + tables}
    others = [tensor for tensor in model.parameters() if id(tensor) not in taken]
    trainable = sorted(id(tensor) for tensor in model.parameters() if tensor.requires_grad)
    if sorted(id(tensor) for tensor in matrices + tables + others) != trainable:
        raise ValueError("every trainable tensor must be in exactly one optimizer group")
    muon = Muon(matrices, lr=config.matrix_lr, momentum=config.momentum[0], weight_decay=config.matrix_decay)
    adam = AdamW(
        [
            {"params": tables, "lr": config.embed_lr, "weight_decay": config.embed_decay},
            {"params": others, "lr": config.scalar_lr, "weight_decay": config.scalar_decay},
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )
    for group in muon.param_groups + adam.param_groups:
        group["peak_lr"] = group["lr"]
    return muon, adam
