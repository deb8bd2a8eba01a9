"""One optimiser step: gradients gathered, clipped by their norm, AdamW on float32 master copies."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import overload

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pairtune import parallel
from pairtune.data.pack import Tokens, row_lengths
from pairtune.engine.hidden import passes
from pairtune.engine.kernels import adamw, round_into, total_norm
from pairtune.engine.sharded import Part, is_parted, own_part
from pairtune.errors import InputError
from pairtune.settings import Optimisation

# Adam's decay rates (Kingma & Ba 2014), and the names of what is kept for each parameter.
BETAS = (0.9, 0.999)
MOMENTS = ("master", "mean", "square")


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) whose weights and moments are float32 whatever the model's dtype.

    A bfloat16 parameter has a float32 master copy, and after a step the master is rounded back without bias
    (`round_into`): small learning rates are not lost to bfloat16's 8 bits. A step's gradient is kept as the one pass
    made it, or added up in float32 where there are several passes. Weights decay if they have two dimensions or more
    (matrices and embeddings, those of a head too) and are not `undecayed`: to pull a norm's scale or a bias to 0
    regularises nothing. Of parameters that lie in parts on several ranks each rank holds its own: they come with their
    gradients summed over the ranks.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        weight_decay: float = 0.0,
        undecayed: Iterable[nn.Parameter] = (),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("there is nothing to learn: no parameter takes a gradient")
        self.parted, self.own = is_parted(self.parameters), [own_part(p.detach()) for p in self.parameters]
        spared = {id(parameter) for parameter in undecayed}
        self.decays = [0.0 if p.dim() < 2 or id(p) in spared else weight_decay for p in self.parameters]
        self.masters = [p if p.dtype == torch.float32 else p.float() for p in self.own]
        self.means = [torch.zeros_like(master) for master in self.masters]
        self.squares = [torch.zeros_like(master) for master in self.masters]
        self.gradients: list[Tensor | None] = [None] * len(self.parameters)
        self.steps, self.eps = 0, eps
        self.began = torch.tensor(self.size(), dtype=torch.float64)  # the weights' norm
        self.hooks = [p.register_post_accumulate_grad_hook(self._gather(i)) for i, p in enumerate(self.parameters)]

    def step(self, *, learning_rate: float, max_gradient_norm: float) -> float:
        """Apply the gathered gradients and forget them. Returns their norm before clipping.

        A parameter that no gradient reached since the last step stays as it is.
        """
        if not self.parted:
            self.gradients = parallel.sum_gradients(self.gradients, self.parameters)
        norm = self._norm([gradient for gradient in self.gradients if gradient is not None])
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm}")
        self.steps += 1
        kept = (self.masters, self.means, self.squares, self.gradients)
        for own, decay, master, mean, square, gradient in zip(self.own, self.decays, *kept, strict=True):
            if gradient is None:
                continue
            adamw(
                master,
                mean,
                square,
                gradient,
                master if own.dtype == torch.float32 else own,
                step=self.steps,
                learning_rate=learning_rate,
                clip=min(1.0, max_gradient_norm / (norm + 1e-6)),
                betas=BETAS,
                eps=self.eps,
                weight_decay=decay,
            )
        self.gradients = [None] * len(self.parameters)
        return norm

    def forget(self) -> None:
        """Forget what was gathered since the last step."""
        self.gradients = [None] * len(self.parameters)
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor | Part]:
        """Masters and moments by number, and the count of steps, for a checkpoint."""
        tensors: dict[str, Tensor | Part] = {"steps": torch.tensor(self.steps), "began": self.began}
        for i, values in enumerate(zip(self.masters, self.means, self.squares, strict=True)):
            tensors |= {f"{i}.{name}": self._to_keep(i, value) for name, value in zip(MOMENTS, values, strict=True)}
        return tensors

    def take(self, name: str, tensor: Tensor) -> Tensor:
        """What this rank holds of one of a checkpoint's tensors, named as in `state`."""
        number = name.partition(".")[0]
        if not number.isdigit() or int(number) >= len(self.parameters):
            return tensor
        kept = self._to_keep(int(number), tensor)
        return kept.of(tensor) if isinstance(kept, Part) else tensor

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over a checkpoint, and round the masters into the model."""
        shapes = {f"{i}.master": master.shape for i, master in enumerate(self.masters)}
        if any(tensors[name].shape != shape if name in tensors else True for name, shape in shapes.items()):
            raise InputError(
                "out: the checkpoint there is of a model of other shapes, and cannot be gone on with; give another "
                "--out"
            )
        self.steps, self.began = int(tensors["steps"]), tensors["began"]
        for i, values in enumerate(zip(self.masters, self.means, self.squares, strict=True)):
            for name, value in zip(MOMENTS, values, strict=True):
                value.copy_(tensors[f"{i}.{name}"])
        for own, master in zip(self.own, self.masters, strict=True):
            round_into(own, master)

    def growth(self) -> float:
        """The norm of the weights divided by that before the first step; 1 where they were all 0."""
        began = float(self.began)
        return self.size() / began if began else 1.0

    def size(self) -> float:
        """The norm of the weights."""
        return self._norm(self.masters)

    def not_finite(self) -> str:
        """What of it is infinite or no number, in words; nothing if all is as it should be."""
        kinds = {"weights": [*self.masters, *self.own], "moments": [*self.means, *self.squares]}
        for name, tensors in kinds.items():
            ends = (end for tensor in tensors if tensor.numel() for end in tensor.detach().aminmax())
            if not all(math.isfinite(float(end)) for end in ends):
                return name
        return ""

    def release(self) -> None:
        """Forget gradients, moments and hooks; the model keeps its weights."""
        for hook in self.hooks:
            hook.remove()
        self.masters, self.means, self.squares, self.gradients, self.own = [], [], [], [], []

    def _norm(self, tensors: Sequence[Tensor]) -> float:
        """√Σ x² over all of them, on every rank where they lie in parts."""
        norm = total_norm(tensors)
        return math.sqrt(parallel.totals(norm**2)[0]) if self.parted else norm

    def _to_keep(self, number: int, value: Tensor) -> Tensor | Part:
        like = self.parameters[number]
        return Part(value, like) if isinstance(like, DTensor) else value

    def _gather(self, number: int) -> Callable[[Tensor], None]:
        """The hook that takes a parameter's gradient as soon as a pass has made it."""

        def gather(parameter: Tensor) -> None:
            assert parameter.grad is not None
            fresh, before = own_part(parameter.grad), self.gradients[number]
            self.gradients[number] = fresh if before is None else before.float().add_(fresh)
            parameter.grad = None

        return gather


def optimizer_of(model: nn.Module, settings: Optimisation) -> Optimizer:
    """The optimiser of a model's weights. Norms and biases do not decay, nor do those of several heads, stacked."""
    stacked = [parameter for name, parameter in model.named_parameters() if _is_norm_or_bias(name)]
    return Optimizer(model.parameters(), weight_decay=settings.weight_decay, undecayed=stacked)


def _is_norm_or_bias(name: str) -> bool:
    """By the names that models give them: q_norm.weight, ln_1.weight, gate_up_proj_bias."""
    own = name.removesuffix(".weight").rpartition(".")[2].lower()
    return "norm" in own or own.endswith("bias") or own.split("_")[0] == "ln"


def learning_rate(step: int, steps: int, *, peak: float, warmup: float, schedule: str) -> float:
    """Rate of step 1..steps: linear up over the first `warmup` share, then by the schedule.

    "linear" and "cosine" come down to 0 one step after the last; "constant" stays.
    """
    rising = max(1, round(warmup * steps))
    if step <= rising:
        return peak * step / rising
    left = (steps - step + 1) / (steps - rising + 1)
    falls = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
    return peak * falls[schedule]


def epoch_order(examples: int, *, seed: int, epoch: int) -> list[int]:
    """The examples in an order that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator).tolist()


class Batches(Sequence[list[int]]):
    """Every step's examples, listed an epoch at a time. An epoch's last step takes what is left over."""

    def __init__(self, order: Callable[[int], list[int]], examples: int, *, batch_size: int, epochs: int) -> None:
        """order(epoch): the examples in that epoch's order."""
        self._order = functools.lru_cache(maxsize=1)(order)
        self._batch_size, self._epochs, self._in_epoch = batch_size, epochs, -(-examples // batch_size)

    def __len__(self) -> int:
        return self._epochs * self._in_epoch

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[step] for step in range(*index.indices(len(self)))]
        epoch, step = divmod(range(len(self))[index], self._in_epoch)
        return self._order(epoch)[step * self._batch_size : (step + 1) * self._batch_size]


def step_batches(examples: int, *, batch_size: int, epochs: int, seed: int) -> Batches:
    """Every step's examples in an order that depends on seed and epoch alone; nothing is dropped."""
    order = functools.partial(_order, examples, seed)
    return Batches(order, examples, batch_size=batch_size, epochs=epochs)


def _order(examples: int, seed: int, epoch: int) -> list[int]:
    return epoch_order(examples, seed=seed, epoch=epoch)


def enough_for(rows: Sequence[Tokens], settings: Optimisation) -> None:
    """Raises InputError if there are more ranks than examples in a step; the last of an epoch may have fewer."""
    parallel.check_enough(min(settings.batch_size, len(rows)))


def own_share(rows: Sequence[Tokens], indices: Sequence[int]) -> list[int]:
    """Those of a step's examples that this rank computes, by the tokens of each; all of them in one process."""
    return parallel.share(indices, row_lengths([rows[i] for i in indices]).tolist())


def micro_batches(rows: Sequence[Tokens], indices: Sequence[int], device: torch.device) -> list[list[int]]:
    """The step's indices in groups small enough for one pass. Losses are normalised by the whole step's counts."""
    return [[indices[i] for i in group] for group in passes([rows[i] for i in indices], device)]
