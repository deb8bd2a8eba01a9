"""A decoding step that a GPU repeats by itself: recorded once as a CUDA graph, then replayed for every token.

A step of a small model is hundreds of short kernels, which can take longer to launch than to run. A graph is launched
at once, but it holds addresses and shapes, so a step's inputs lie where they lay when it was recorded. No
graph's word is taken for it: its first replay is held against the step itself.

Shape suffixes: B rows, E hidden size.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.progress import say
from pairtune.sampling.decoding import KeyValues


class Graph(Protocol):
    """One recorded function."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What the function gives when it is run, and the tensor into which every replay will write that."""

    def replay(self) -> None:
        """Do again what was recorded, on what now lies at the same addresses."""


class CudaGraph:
    """A Graph on the current CUDA device. Its memory is given back with it."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Run once to warm up (kernels are compiled and chosen, libraries take their memory), then record."""
        here, side = torch.cuda.current_stream(), _side_stream(torch.cuda.current_device())
        side.wait_stream(here)
        with torch.cuda.stream(side):
            result = function()
        here.wait_stream(side)
        # The outer block goes back to the stream we are on: torch.cuda.graph does not if the recording fails.
        with torch.cuda.stream(side), torch.cuda.graph(self.graph, stream=side):
            static = function()
        return result, static

    def replay(self) -> None:
        """On the current stream."""
        self.graph.replay()


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One for warming up and recording, so that cuBLAS has its workspace there first, outside of any graph's memory."""
    return torch.cuda.Stream(device)


GRAPHS: dict[str, Callable[[], Graph]] = {"cuda": CudaGraph}
# Why an architecture's steps are not replayed; empty where they are. What failed once is not tried again: in the torch
# releases of today a recording that failed keeps its memory (pytorch#190348).
TROUBLE: dict[type[PreTrainedModel], str] = {}


def decoder_for(model: PreTrainedModel, longest: int) -> KeyValues:
    """What decodes on this model and device: rows of at most `longest` tokens, prompts included."""
    static = model.device.type in GRAPHS and not TROUBLE.get(type(model))
    return (Static if static else KeyValues)(model, longest)


class Static(KeyValues):
    """KeyValues whose steps are replayed. A step's hidden states are good until the next one writes over them.

    When rows leave, the caches of those that stay are moved together, so that attention reads them where they lie, and
    the step is recorded anew: a warm-up, a recording and a comparison, each about a step by itself. Rows that have
    ended cost a replay little more than the reading of their caches, so they stay until they are half of the batch:
    then there are log2(B) recordings at most, and each one halves the caches that a replay reads.
    """

    leave_at = 0.5
    graph: Graph | None = None
    token_B: Tensor  # where a replay reads its tokens
    hidden_BE: Tensor  # and where it writes

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in the order they are in."""
        self.graph = None
        super().keep(rows)
        for layer, (keys, values) in enumerate(self.layers):  # one by one: never all of them twice
            self.layers[layer] = keys[self.slot_B], values[self.slot_B]
        self.slot_B = torch.arange(len(rows), device=rows.device)

    def _next(self, token_B: Tensor) -> Tensor:
        # `length_B` grows outside of the graph, in place: so the same step can be run twice to compare.
        if self.graph is not None:
            self.token_B.copy_(token_B)
            self.graph.replay()
            return self.hidden_BE
        if TROUBLE.get(type(self.model)):
            return super()._next(token_B)
        self.token_B = token_B.clone()
        return self._record(partial(super()._next, self.token_B))

    def _record(self, step: Callable[[], Tensor]) -> Tensor:
        """Record the step and replay it once: its hidden states, [B, E]."""
        try:
            graph = GRAPHS[self.model.device.type]()
            expected_BE, self.hidden_BE = graph.record(step)
            graph.replay()
            error = float((self.hidden_BE - expected_BE).norm() / expected_BE.norm())
            # A recording runs nothing and cannot read a number back, so it holds nothing of this step's values: what
            # is right once is right again. NaN is not.
            right = error <= max(1e-5, 2 * torch.finfo(expected_BE.dtype).eps)
            trouble = "" if right else f"a CUDA graph's replay differs by {error:.2g} from the step"
        except Exception as problem:  # whatever a driver, a compiler or a model's code says: do without
            trouble = "; ".join(
                (str(each) or type(each).__name__).splitlines()[0][:120]
                for each in (problem, problem.__context__)  # what broke the recording, and then its end
                if each is not None
            )
        if TROUBLE.get(type(self.model)) != trouble:
            how = f"one by one, which is right but slower: {trouble}" if trouble else "replayed from a CUDA graph"
            say(f"sampling: decoding steps are {how}")
        TROUBLE[type(self.model)] = trouble
        if trouble:
            return step()  # again, for the replay may have written keys and values that are wrong
        self.graph = graph
        return self.hidden_BE
