"""The catalogue as people read it: on a terminal, as JSON, as a page of the docs."""

import inspect
import json
import textwrap

from pairtune.objectives.catalog import FAMILIES, OBJECTIVES
from pairtune.objectives.objective import Objective, Parameter

HEAD = """# The objectives

Generated from the catalogue (`src/pairtune/objectives/`) by `docs/make_objectives.py`; a test keeps it in step.
`pairtune objectives` prints the short form, `pairtune objectives --json` the same for programs.

```sh
pairtune tune --objective simpo --beta 2 --gamma 0.5 --data examples/pairs.jsonl
pairtune tune --objective "dpo+0.2*sft" --data examples/pairs.jsonl      # a weighted sum of any of them
pairtune compare --methods dpo ipo kto simpo ppo                         # each with its own defaults
```

**How to read an equation.** x is the prompt, w the chosen response, l the rejected one, y any response, |y| its number
of tokens with the end of text. Δ_y = log π(y|x) − log π_ref(y|x) is the log-ratio, in nats, summed over the response's
tokens. σ is the logistic function. The loss of a step is the mean over its pairs (over its responses, for data with
labels). "The minimiser" is the policy with the least expected loss over all policies and unlimited pairs, where that is
known; those that say so in closed form are checked in an exact world (`tests/objectives/test_minimisers.py`).

**β is not one thing.** Where the equation is a likelihood of β·Δ, it is the weight of KL(π‖π_ref), and a larger β stays
closer to the reference. In `ipo`, `sppo` and `cal-dpo` it sets the target 1/(2β). In `cpo` it is the weight of
KL(π‖uniform), in `simpo` a scale of the reward per token: neither holds the policy to where it started. Each objective
has its own default, which is used unless you give another. A parameter that an objective does not have is an error that
names those it has; in a sum or a comparison a parameter goes to every objective that has it.

**What is computed** is what the loss's arguments name, and nothing else: no reference is loaded or run for a loss that
needs none. Two need more than the log-probabilities of their pairs: `kto` runs each prompt with responses to another
one, forward only; `wpo` reads the whole distribution at each token.

**A sum** is added up as it is written, so its terms should be of one scale: DPO begins at ln 2 for each pair, imitation
at one to four nats a token. Imitation (`sft`, and the terms of `cpo`, `rpo`, `orpo` and `unlikelihood`) is therefore a
mean per token; only `slic` sums it, as its paper sums both of its terms. A run with a sum says each term's share
of the first loss: `loss: dpo 0.693 (57%), 0.2*sft 0.515 (43%)`.

**TRL** means version 1.16, read in its source. The optional test `tests/objectives/test_trl.py` compares values where
it is installed.

**To add one**: a function whose argument names say what it needs (`src/pairtune/objectives/objective.py` lists them),
a docstring like those below, an entry in `catalog.py`; `python docs/make_objectives.py` writes it into this page.
Flags, help, YAML, sums, comparisons and every test of the catalogue then take it.

**Your own, without touching pairtune**: the same function in a file of yours is an objective by the file's name and
its own, [examples/my_losses.py](../examples/my_losses.py) is one. Its arguments' names say what it is given, what
stands after the `*` are its parameters, each with a default, and what a line of its docstring says of one is its
meaning in the help (`pairtune tune --objective examples/my_losses.py:shifted_dpo --help`). It stands wherever a name
of the catalogue may, is tried on made-up pairs before anything is trained (one finite loss a pair, with a gradient,
not changed by the other pairs), and is known by the content of its file and of the modules beside it that it imports:
a run whose function has changed is another run. It is your code and is run as such; nothing is downloaded for it.

```sh
pairtune tune --objective examples/my_losses.py:shifted_dpo --shift 1 --data examples/pairs.jsonl
pairtune compare --data examples/pairs.jsonl --methods dpo "examples/my_losses.py:shifted_dpo+0.2*sft" --out runs/own
```

"""

SHEET = """**At a glance.** What each loss pushes, at its defaults, for two responses of 20 tokens: how fast it falls
for a nat more of the chosen response (solid) and rises for a nat more of the rejected one (dashed), over the margin.
Where both lines come to 0 a pair has taught what it can; where they stay apart from 0 it teaches for ever; where one
crosses 0 the loss holds that response at a place of its own. The two lie on each other where a loss looks at the margin
alone.

![Push on the chosen and on the rejected response over the margin, a panel for each objective](figures/objectives.svg)

"""

TAIL = """## Left out

- **TDPO** (Zeng et al. 2024, arXiv 2404.11999) adds Σ_t KL(π_ref(·|x, y_<t)‖π(·|x, y_<t)) for each response, through
  whose π its gradient flows. That needs the reference's whole distribution at every token, where the cache keeps one
  number per token: for a vocabulary of 50,000 it would be 50,000 times as large, or the reference would have to run
  beside the policy at every step. Either breaks what the engine is built on, so it is not here.
- **The data filter of β-DPO** draws which pairs of a batch to train on: it is a sampler, not a loss.
- **BCO's weighting** for desirable and undesirable responses with different prompts needs a classifier of prompts.
"""


def as_json() -> str:
    """A list of objects: name, needs_reference, data, parameters, source, equation."""
    return json.dumps([_fields(entry) for entry in OBJECTIVES.values()], indent=2, ensure_ascii=False)


def as_text() -> str:
    """A block a family, some lines an objective."""
    blocks = []
    for family, entries in FAMILIES.items():
        blocks.append(f"{family}\n" + "\n".join(_lines(entry) for entry in entries))
    return "\n\n".join(blocks)


def as_page() -> str:
    """docs/objectives.md."""
    rows = [
        f"| [{entry.name}](#{entry.name}) | {'yes' if 'reference' in entry.needs else 'no'} | {entry.data} "
        f"| {', '.join(f'{name} {p.default:g}' for name, p in entry.parameters.items()) or '—'} |"
        for entry in OBJECTIVES.values()
    ]
    table = "\n".join(["| objective | reference | data | parameters |", "|---|---|---|---|", *rows])
    sections = [
        f"## {family}\n\n" + "".join(_section(entry) for entry in entries) for family, entries in FAMILIES.items()
    ]
    return HEAD + table + "\n\n" + SHEET + "".join(sections) + TAIL


def summary(entry: Objective) -> str:
    """What the objective is for, in a sentence: the first of its docstring."""
    return _paragraphs(entry)[0]


def _fields(entry: Objective) -> dict[str, object]:
    return {
        "name": entry.name,
        "needs_reference": "reference" in entry.needs,
        "data": entry.data,
        "parameters": {n: {"default": p.default, "meaning": p.meaning} for n, p in entry.parameters.items()},
        "source": entry.source,
        "equation": entry.equation,
    }


def _lines(entry: Objective) -> str:
    needs = f"{entry.data}, {'with a' if 'reference' in entry.needs else 'no'} reference"
    lines = [f"  {entry.name}  ({needs})", *textwrap.wrap(summary(entry), 108), entry.equation]
    lines += [f"--{n.replace('_', '-')} {p.default:g}  {p.meaning}" for n, p in entry.parameters.items()]
    return "\n      ".join([*lines, entry.source])


def _section(entry: Objective) -> str:
    """What it is for, the equation with its source, parameters, what it needs, where it ends, where TRL departs."""
    what, equation, *rest = _paragraphs(entry)
    needs = f"{entry.data}; {'needs the reference' if 'reference' in entry.needs else 'no reference'}"
    lines = [f"- `{name}` (default {p.default:g}{_bounds(p)}): {p.meaning}" for name, p in entry.parameters.items()]
    return "\n\n".join(
        [
            f"### {entry.name}",
            what,
            equation,
            "\n".join([*lines, f"- data: {needs}"]),
            *(_marked(paragraph) for paragraph in rest),
            "",
        ]
    )


def _bounds(parameter: Parameter) -> str:
    bounds = {"above": parameter.above, "least": parameter.least, "below": parameter.below, "most": parameter.most}
    words = {"above": "above", "least": "at least", "below": "below", "most": "at most"}
    return "".join(f", {words[name]} {bound:g}" for name, bound in bounds.items() if bound is not None)


def _marked(paragraph: str) -> str:
    """A paragraph with its label, if it has one, in bold."""
    for label in ("Minimiser:", "TRL:"):
        if paragraph.startswith(label):
            return f"**{label}**{paragraph.removeprefix(label)}"
    return paragraph


def _paragraphs(entry: Objective) -> list[str]:
    text = inspect.getdoc(entry.loss) or ""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
