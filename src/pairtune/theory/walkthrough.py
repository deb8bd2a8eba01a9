"""The derivation on a terminal: each equation, one plain sentence, how far it is from true, and what holds it."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pairtune.theory.derivation import Step

OPENING = (
    "A small world holds prompts x, responses y, a reward r(x,y), and a reference policy π_ref that gives every "
    "response some probability. A pair is two responses to one prompt: w was chosen, l rejected. Each equation below "
    "is computed in two different ways in random worlds. The residual is the largest difference found, divided by the "
    "largest value compared where that is above 1."
)
SYMBOLS = (
    ("π", "a policy: how likely each response is, given the prompt"),
    ("β", "the weight of KL(π‖π_ref), the price of leaving the reference; always above zero"),
    ("KL", "Kullback–Leibler divergence: KL(π‖π_ref) = E_π[log(π/π_ref)], in nats (log is natural)"),
    ("E", "a mean: E_π over the responses of π, E_old over those of π_old, E alone over the labelled pairs"),
    ("w ≻ l", "w is preferred to l; p* is the true chance of that, p_π the one that a policy implies"),
    ("σ", "the logistic function: σ(z) = 1/(1 + exp(−z))"),
    ("r_w", "short for r(x,w), as r_l is for r(x,l) and r_k for r(x,y_k)"),
    ("r̂", "a reward that was learned, or the one that a policy implies: β·log(π/π_ref)"),
    (
        "ρ A ε",
        "PPO's ratio π/π_old (π_old drew the samples), advantage (shaped reward less its mean), clipping range",
    ),
    ("μ", "in equation 22, the policy whose responses are compared: a pair is two independent draws from it"),
)
CHAPTERS = {
    1: "The objective and its best policy",
    6: "From rewards to preferences",
    11: "The DPO loss",
    16: "The long way round: a reward model, then PPO",
    20: "What β does, and where the equivalence ends",
}


def show(steps: Sequence[Step], console: Console) -> None:
    """Print the steps for a person to read, at any width; ends by saying whether every one of them holds."""
    console.print(Text("From Bradley–Terry to DPO", style="bold"), Text(OPENING), sep="\n\n")
    console.print()
    console.print(legend())
    for step in steps:
        if step.step in CHAPTERS:
            console.print()
            console.rule(Text(CHAPTERS[step.step], style="bold"), align="left")
        show_step(step, console)
    console.print()
    console.print(verdict(steps))


def legend() -> Padding:
    """What each symbol stands for, in two columns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for symbol, meaning in SYMBOLS:
        table.add_row(Text(symbol, style="bold cyan"), Text(meaning))
    return Padding(table, (0, 0, 0, 4), expand=False)


def show_step(step: Step, console: Console) -> None:
    """One step: its number and equation, then its claim, residual, function and test."""
    console.print()
    for place, part in enumerate(step.equation.split("   ")):
        number = f"{step.step:2d}" if place == 0 else "  "
        console.print(Text(f"{number}  ") + Text(part, style="bold cyan"))
    write(Text(step.claim), console)
    relation, style = ("≤", "green") if step.holds else (">", "bold red")
    write(Text(f"residual {step.residual:.1e} {relation} {step.tolerance:.0e}", style=style), console)
    for name in (step.function, step.test):  # left whole, however narrow the terminal, so that they can be copied
        console.print(Text(f"    {name}", style="dim"), soft_wrap=True)


def write(text: Text, console: Console) -> None:
    """A paragraph indented under its step's number."""
    console.print(Padding(text, (0, 0, 0, 4), expand=False))


def verdict(steps: Sequence[Step]) -> Text:
    """The last line: that every equation holds, or which do not."""
    broken = [str(step.step) for step in steps if not step.holds]
    if broken:
        return Text(f"Not every equation holds: see {', '.join(broken)}.", style="bold red")
    largest = max(steps, key=lambda step: step.residual)
    return Text(
        f"All {len(steps)} equations hold. The largest residual is {largest.residual:.1e}, at equation {largest.step}.",
        style="bold green",
    )
