"""A scalar on top of a language model's body: the reward model and the value model of PPO.

Shape suffixes: T tokens, E hidden size.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune import hub
from pairtune.errors import InputError
from pairtune.models.load import Tokenizer, load_model, load_tokenizer, reason, save_model
from pairtune.models.machine import Machine

HEAD_FILE = "scalar_head.safetensors"
FACTS_FILE = "scalar_head.json"


class ScalarModel(nn.Module):
    """A causal language model whose hidden states are read by one linear map, then shifted and scaled.

    `mean` and `std` normalise the output, (w·h + b − mean) / std: a reward model's are set so that the reference's
    answers score 0 ± 1; a new head's are 0 and 1.
    """

    def __init__(self, body: PreTrainedModel, *, seed: int = 0) -> None:
        super().__init__()
        self.body = body
        size: int = body.config.get_text_config().hidden_size
        self.head = nn.Linear(size, 1, dtype=torch.float32, device=body.device)
        generator = torch.Generator().manual_seed(seed)
        # std 1/√(d+1): "The N implementation details of RLHF with PPO", detail 11 of the reward model
        initial = torch.randn(1, size, generator=generator) / (size + 1) ** 0.5
        with torch.no_grad():
            self.head.weight.copy_(initial)
            self.head.bias.zero_()
        self.mean = 0.0
        self.std = 1.0
        # The body's language-model head is never read here; a tied one stays as the embedding it is.
        output = body.get_output_embeddings()
        if output is not None and output.weight is not body.get_input_embeddings().weight:
            output.requires_grad_(False)

    def scalars(self, hidden_TE: Tensor) -> Tensor:
        """The normalised scalar of each hidden state: [T], float32."""
        raw_T: Tensor = self.head(hidden_TE.float())[..., 0]
        return (raw_T - self.mean) / self.std

    def save(self, folder: Path, tokenizer: Tokenizer) -> None:
        """An ordinary Hugging Face folder of the body, with the head beside it."""
        save_model(self.body, tokenizer, folder)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}, folder / HEAD_FILE)
        (folder / FACTS_FILE).write_text(json.dumps({"mean": self.mean, "std": self.std}) + "\n", encoding="utf-8")


def load_scalar_model(name: str, machine: Machine, *, trust_remote_code: bool = False) -> tuple[ScalarModel, Tokenizer]:
    """A model saved by `ScalarModel.save`, and its tokenizer. Raises InputError if the folder has no usable head."""
    folder = Path(name).expanduser()
    hub.check_path(name)
    if not (folder / HEAD_FILE).is_file():
        raise InputError(f'"{name}" is not a reward model; give a folder made by `pairtune reward`')
    model = ScalarModel(load_model(name, machine, trust_remote_code=trust_remote_code))
    try:
        model.head.load_state_dict(load_file(folder / HEAD_FILE, device=str(machine.device)))
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        model.mean, model.std = float(facts["mean"]), float(facts["std"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'the scalar head in "{name}" cannot be read: {reason(error)}') from error
    return model.eval(), load_tokenizer(name, trust_remote_code=trust_remote_code)
