"""One optimiser step: gradients gathered in float32, clipped by their norm, AdamW on float32 master copies."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pairtune.data.pack import Tokens, batches_by_tokens
from pairtune.engine.hidden import TOKENS_PER_PASS


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) whose weights, moments and gradients are float32 whatever the model's dtype.

    A bfloat16 parameter has a float32 master copy: each pass's gradient is added to the master's as it arrives, and
    after the step the master is rounded back. Small learning rates are then not lost to bfloat16's 8 bits.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float = 0.0, eps: float = 1e-8) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.arrived: set[int] = set()  # numbers of the masters that have a gradient of the step under way
        self.hooks: list[RemovableHandle] = []
        self.masters = [p if p.dtype == torch.float32 else self._master(i, p) for i, p in enumerate(self.parameters)]
        self.adam = torch.optim.AdamW(self.masters, lr=0.0, weight_decay=weight_decay, eps=eps, fused=True)

    def step(self, *, learning_rate: float, max_gradient_norm: float) -> float:
        """Apply the gathered gradients and forget them. Returns their norm before clipping."""
        for i, (parameter, master) in enumerate(zip(self.parameters, self.masters, strict=True)):
            if master is not parameter and i not in self.arrived and master.grad is not None:
                master.grad.zero_()
        self.arrived.clear()
        norm = nn.utils.clip_grad_norm_(self.masters, max_gradient_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm.item()}")
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                parameter.data.copy_(master.data)
            elif master.grad is not None:
                master.grad.zero_()
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by number, for a checkpoint."""
        tensors = {}
        for i, master in enumerate(self.masters):
            tensors[f"{i}.master"] = master.data
            tensors |= {f"{i}.{name}": value for name, value in self.adam.state[master].items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over a checkpoint, and round the masters into the model."""
        for i, (parameter, master) in enumerate(zip(self.parameters, self.masters, strict=True)):
            master.data.copy_(tensors[f"{i}.master"])
            parameter.data.copy_(master.data)
            names = [key.split(".", 1)[1] for key in tensors if key.startswith(f"{i}.") and key != f"{i}.master"]
            self.adam.state[master] = {name: tensors[f"{i}.{name}"].to(master.device, copy=True) for name in names}

    def release(self) -> None:
        """Forget gradients, moments and hooks; the model keeps its weights."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.grad = master.grad = None
        for hook in self.hooks:
            hook.remove()
        self.adam.state.clear()

    def _master(self, number: int, parameter: nn.Parameter) -> nn.Parameter:
        """The float32 copy of a parameter, and the hook that brings it the parameter's gradients.

        The step's first gradient overwrites the last step's, so no pass over memory is spent on zeroing.
        """
        master = nn.Parameter(parameter.detach().float())
        master.grad = torch.zeros_like(master)

        def gather(fresh: Tensor) -> None:
            assert master.grad is not None
            assert fresh.grad is not None
            if number in self.arrived:
                master.grad.add_(fresh.grad)
            else:
                master.grad.copy_(fresh.grad)
                self.arrived.add(number)
            fresh.grad = None

        self.hooks.append(parameter.register_post_accumulate_grad_hook(gather))
        return master


def learning_rate(step: int, steps: int, *, peak: float, warmup: float, decay: bool = True) -> float:
    """Rate of step 1..steps: linear up over the first `warmup` share, then linear down to 0 (or level)."""
    rising = max(1, round(warmup * steps))
    if step <= rising:
        return peak * step / rising
    return peak * (steps - step + 1) / (steps - rising + 1) if decay else peak


def epoch_order(examples: int, *, seed: int, epoch: int) -> list[int]:
    """The examples in an order that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator).tolist()


def step_batches(examples: int, *, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Every step's examples. An epoch's last step takes what is left over; nothing is dropped."""
    steps = []
    for epoch in range(epochs):
        order = epoch_order(examples, seed=seed, epoch=epoch)
        steps += [order[at : at + batch_size] for at in range(0, examples, batch_size)]
    return steps


def micro_batches(rows: Sequence[Tokens], indices: Sequence[int], device: torch.device) -> list[list[int]]:
    """The step's indices in groups small enough for one pass. Losses are normalised by the whole step's counts."""
    groups = batches_by_tokens([rows[i] for i in indices], TOKENS_PER_PASS[device.type])
    return [[indices[i] for i in group] for group in groups]
