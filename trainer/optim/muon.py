"""Muon: momentum whose matrix is replaced by the nearest orthogonal one; and the parameter groups of a GPT."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainer.compute.ranks import Ranks
from trainer.model.gpt import GPT
from trainer.presets.train_config import TrainConfig

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewtonSchulz:
    """x <- a x + (b g + c g^2) x with g = x x^T, one (a, b, c) per step; margin: how far below 1 the norm starts."""

    triples: tuple[Triple, ...]
    margin: float = 1.0


# Source: Keller Jordan's Muon; maps singular values into about 0.7..1.2.
JORDAN = NewtonSchulz(triples=5 * ((3.4445, -4.7750, 2.0315),))
# Source: Polar Express (Amsel et al. 2025) with the numbers of modded-nanogpt; into about 0.86..1.14.
POLAR = NewtonSchulz(
    margin=1.02,
    triples=(
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
)
COEFFICIENTS = {"jordan": JORDAN, "polar": POLAR}


def orthogonalize(matrices: Tensor, iteration: NewtonSchulz = JORDAN, dtype: torch.dtype | None = None) -> Tensor:
    """(K, r, c) -> (K, r, c) with singular values near 1, by Newton-Schulz iterations on the whole batch.

    dtype: to work in, and of the result.  By default bfloat16 on CUDA; float32 on CPUs, where bfloat16 takes a quarter
    of the time or three times as long: runs should not depend on which.
    """
    x = matrices.to(dtype or (torch.bfloat16 if matrices.is_cuda else torch.float32))
    x = x / (iteration.margin * x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for a, b, c in iteration.triples:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Orthogonalized Nesterov momentum with decoupled weight decay, for matrices.

    Equal shapes are stacked and updated together: one batched multiplication instead of dozens of small ones.  Every
    rank keeps every momentum, orthogonalizes its share of each stack and gets the rest from the others, so gradients
    must be the same on all ranks when `step` runs.
    row_norm: rows of the update get unit length before it is orthogonalized (pull request 1716).
    newton_schulz: "jordan" or "polar".

    Raises: ValueError for a parameter that is not a matrix.
    Source: m <- mu m + g; u = g + mu m; W <- W (1 - lr decay) - lr sqrt(max(1, r/c)) orthogonal(u).
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        row_norm: bool = False,
        newton_schulz: str = "jordan",
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.row_norm, self.iteration, self.ranks = row_norm, COEFFICIENTS[newton_schulz], ranks
        self._stacks = [[self._stack(members) for members in _by_shape(group["params"])] for group in self.param_groups]

    def _stack(self, members: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """(parameters of one shape, their momentum (K, r, c)); each parameter's state is a view into it."""
        if members[0].ndim != 2:
            raise ValueError(f"Muon takes matrices, got a tensor of shape {tuple(members[0].shape)}")
        momenta = torch.zeros(len(members), *members[0].shape, device=members[0].device)
        for parameter, momentum in zip(members, momenta, strict=True):
            self.state[parameter]["momentum"] = momentum
        return members, momenta

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: it would bypass averaging and clipping
        """One update; every parameter must have its gradient, averaged over the ranks and clipped."""
        for group, stacks in zip(self.param_groups, self._stacks, strict=True):
            lr, mu = group["lr"], group["momentum"]
            for members, momenta in stacks:
                momenta.mul_(mu)
                torch._foreach_add_(momenta.unbind(), [_gradient(parameter) for parameter in members])
                update = self._update(members, momenta, mu).to(members[0].dtype)
                rows, columns = members[0].shape
                torch._foreach_mul_(members, 1 - lr * group["weight_decay"])
                torch._foreach_add_(members, update.unbind(), alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _update(self, members: list[Tensor], momenta: Tensor, mu: float) -> Tensor:
        """(K, r, c): this rank orthogonalizes its share of the stack, filled up with zeros to equal shares."""
        share = -(-len(members) // self.ranks.world)
        mine = slice(self.ranks.rank * share, (self.ranks.rank + 1) * share)
        part = torch.zeros(share, *momenta.shape[1:], device=momenta.device)
        for nesterov, parameter in zip(part, members[mine], strict=False):
            nesterov.copy_(_gradient(parameter))
        part[: len(momenta[mine])].add_(momenta[mine], alpha=mu)
        if self.row_norm:
            part /= part.norm(dim=-1, keepdim=True).clamp_min(1e-7)
        return self.ranks.gather(orthogonalize(part, self.iteration))[: len(members)]


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"a parameter of shape {tuple(parameter.shape)} has no gradient")
    return parameter.grad


def _by_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    shapes: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    return list(shapes.values())


def optimizers(model: GPT, config: TrainConfig, ranks: Ranks = Ranks()) -> tuple[Muon, AdamW]:  # noqa: B008 - frozen
    """Muon for the matrices, AdamW for the embedding tables and, with its own rate, for everything else.

    Matrices are the linear layers of the blocks, except the gates, and by `muon_projections` those outside.  The
    groups keep their peak learning rate as "peak_lr".

    Raises: ValueError when a trainable tensor is in no group or in two, other than a bigram table that
    `train_bigram` leaves out (in a published record a table never moved by mistake).
    """
    linear = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    matrices = [weight for name, weight in linear.items() if _is_matrix(name, config)]
    left_out = [model.bigram.embed.weight] if model.bigram is not None and not config.train_bigram else []
    skipped = {id(tensor) for tensor in left_out}
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    tables = [table for table in tables if id(table) not in skipped]
    taken = {id(tensor) for tensor in matrices + tables + left_out}
    others = [tensor for tensor in model.parameters() if id(tensor) not in taken]
    trainable = sorted(id(tensor) for tensor in model.parameters() if tensor.requires_grad)
    if sorted(id(tensor) for tensor in matrices + tables + left_out + others) != trainable:
        raise ValueError("every trainable tensor must be in exactly one optimizer group")
    muon = Muon(
        matrices,
        lr=config.matrix_lr,
        momentum=config.momentum[0],
        weight_decay=config.matrix_decay,
        row_norm=config.row_norm,
        newton_schulz=config.newton_schulz,
        ranks=ranks,
    )
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


def _is_matrix(name: str, config: TrainConfig) -> bool:
    if name.startswith("blocks."):
        return not name.endswith("attn_gate_proj")
    return config.muon_projections
