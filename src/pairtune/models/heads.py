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
from pairtune.models import adapters
from pairtune.models.body import final_size
from pairtune.models.classifier import NoClassifierError, load_classifier, save_classifier
from pairtune.models.load import Tokenizer, load_model, load_tokenizer, reason, save_model
from pairtune.models.machine import Machine
from pairtune.progress import say
from pairtune.settings import Adapting

# The head beside an ordinary model: what is written where transformers has no sequence classification to write.
HEAD_FILE = "scalar_head.safetensors"
FACTS_FILE = "scalar_head.json"


class ScalarModel(nn.Module):
    """A causal language model whose hidden states are read by one linear map, w·h + b."""

    def __init__(self, body: PreTrainedModel, *, seed: int = 0) -> None:
        super().__init__()
        self.body = body
        self.behind: dict[int, tuple[int, ...]] = {}  # what it reads behind an answer's end, by that end
        size = final_size(body)
        self.head = nn.Linear(size, 1, dtype=torch.float32, device=body.device)
        generator = torch.Generator().manual_seed(seed)
        # std 1/√(d+1): "The N implementation details of RLHF with PPO", detail 11 of the reward model
        initial = torch.randn(1, size, generator=generator) / (size + 1) ** 0.5
        with torch.no_grad():
            self.head.weight.copy_(initial)
            self.head.bias.zero_()
        # The body's language-model head is never read here; a tied one stays as the embedding it is.
        output = body.get_output_embeddings()
        if output is not None and output.weight is not body.get_input_embeddings().weight:
            output.requires_grad_(False)

    def scalars(self, hidden_TE: Tensor) -> Tensor:
        """The scalar of each hidden state: [T], float32."""
        scalar_T: Tensor = self.head(hidden_TE.float())[..., 0]
        return scalar_T

    @torch.no_grad()
    def normalise(self, *, mean: float, std: float) -> None:
        """Shift and scale what the head gives, to (w·h + b − mean) / std: both go into its numbers."""
        self.head.weight.div_(std)
        self.head.bias.sub_(mean).div_(std)

    def save(self, folder: Path, tokenizer: Tokenizer) -> None:
        """A folder for transformers' `AutoModelForSequenceClassification`, or the body's with the head beside it.

        Of adapters a peft folder for sequence classification, in which other tools find the head but for its bias.
        """
        if adapters.wrapper_of(self.body) is not None:
            adapters.save(self.body, folder, score=self.head.weight)
            tokenizer.save_pretrained(folder)
            self._save_head(folder)
            return
        try:
            save_classifier(self.body, self.head, tokenizer, folder)
        except NoClassifierError as error:
            say(f"reward model: saved in pairtune's own format, which other tools do not read: {error}")
            save_model(self.body, tokenizer, folder)
            self._save_head(folder)

    def _save_head(self, folder: Path) -> None:
        save_file({k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}, folder / HEAD_FILE)


def learner_of(model: ScalarModel, how: Adapting, *, seed: int) -> ScalarModel:
    """A copy whose head and adapters (its own, or fresh ones) learn beside weights held once; the model learns not."""
    body = model.body.requires_grad_(False)
    if adapters.wrapper_of(body) is not None:
        adapters.learn(body)
    copy: ScalarModel = adapters.twin(model)
    if adapters.wrapper_of(copy.body) is None:
        adapters.adapt(copy.body, how, base="", seed=seed)
    model.requires_grad_(False)
    return copy


def load_scalar_model(name: str, machine: Machine, *, trust_remote_code: bool = False) -> tuple[ScalarModel, Tokenizer]:
    """A reward model, ours or another library's, and its tokenizer. Raises InputError if `name` has no usable head."""
    folder = Path(name).expanduser()
    hub.check_path(name)
    if (folder / HEAD_FILE).is_file():
        model = _with_the_head_beside(folder, machine, trust_remote_code=trust_remote_code)
    else:
        body, weight, bias = load_classifier(name, machine, trust_remote_code=trust_remote_code)
        model = ScalarModel(body)
        model.head.load_state_dict({"weight": weight, "bias": bias})
    return model.eval(), load_tokenizer(name, trust_remote_code=trust_remote_code)


def _with_the_head_beside(folder: Path, machine: Machine, *, trust_remote_code: bool) -> ScalarModel:
    """From the body's folder with two files more; those of before wrote the normalisation into the second one."""
    model = ScalarModel(load_model(str(folder), machine, trust_remote_code=trust_remote_code))
    try:
        model.head.load_state_dict(load_file(folder / HEAD_FILE, device=str(machine.device)))
        if (folder / FACTS_FILE).is_file():
            facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
            model.normalise(mean=float(facts["mean"]), std=float(facts["std"]))
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'the scalar head in "{folder}" cannot be read: {reason(error)}') from error
    return model
