"""Whether every adapter of a model takes part in what the model gives, and so learns."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.engine.cost import mixtures
from pairtune.errors import InputError
from pairtune.models import adapters
from pairtune.progress import counted


def check_reached(model: PreTrainedModel, logprob_R: Tensor) -> None:
    """Raises InputError if a layer's adapters get no gradient: the model's code reads its weight without calling it.

    logprob_R: some of the model's log-probabilities, differentiable. A row need not reach every expert of a mixture.
    """
    logprob_R.sum().backward()
    experts = {id(module) for mixture, _ in mixtures(model) for module in mixture.modules()}
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, adapters.kind())]
    idle = [name for name, module in adapted if id(module) not in experts and not _reached(module)]
    model.zero_grad(set_to_none=True)
    if idle:
        raise InputError(
            f"lora: no gradient reaches the adapters of {counted(len(idle), 'layer')} (first: {idle[0]}): the model "
            "reads their weights without calling them, or never; name those that it calls with --lora-targets"
        )


def _reached(layer: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in layer.parameters() if p.requires_grad)
