"""`pairtune tune`."""

from pathlib import Path

from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.commands.figures import say_change, say_share
from pairtune.commands.inputs import (
    OF_LOSS,
    UNUSED,
    Kept,
    given,
    heldout_size,
    load_to_train,
    say_numbers,
    say_reading,
    split_pairs,
)
from pairtune.commands.results import is_done, of_adapters, of_pairs, say_done, say_next, stage_of
from pairtune.configure import loss_to_train
from pairtune.data.check_labels import check_labelled
from pairtune.data.ends import end_ids
from pairtune.data.preflight import check_rows, say_truncation
from pairtune.data.prompt_format import in_format
from pairtune.data.sources import asked_of, has_labels, read_labelled
from pairtune.data.split import split_by_prompt
from pairtune.data.tokenize import encode_demonstrations
from pairtune.data.trained import hashes_of
from pairtune.engine.cost import Cost, uncounted
from pairtune.engine.examples import Examples, prepare
from pairtune.engine.self_check import check_engine
from pairtune.errors import InputError
from pairtune.estimate import Estimate
from pairtune.evaluation.heldout import told_apart
from pairtune.evaluation.objective import ExampleFigures, measure_examples
from pairtune.evaluation.statistics import estimate, paired_difference, share
from pairtune.models.load import Tokenizer, load_tokenizer
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import Loss
from pairtune.objectives.objective import OF_ROWS
from pairtune.progress import counted, say, task
from pairtune.report import words
from pairtune.runs import TuneRun
from pairtune.stages.preference import tune
from pairtune.stages.stage import Facts


def run(settings: TuneRun) -> Path:
    """Tune on preference pairs, or on labelled responses, and measure on held-out ones. Returns the result's folder."""
    loss = loss_to_train(settings)
    if is_done(settings, "tune"):
        return Path(settings.out)
    with parallel.first_before_others():
        train_rows, held_rows, tokenizer, kept = _split_examples(settings, loss)
    with stage_of(settings, "tune") as stage:
        with parallel.first_before_others():
            model = load_to_train(settings)
            check_engine(model, train_rows.rows)
        train, spent = _prepared(model, train_rows, loss, settings)
        held, _ = _prepared(model, held_rows, loss, settings)

        def work(folder: Path) -> Facts:
            with uncounted():  # with a reference, every pair begins as a tie
                begun = None if "reference" in loss.needs else measure_examples(model, loss, held)
            tune(
                folder,
                name=settings.preference.objective,
                model=model,
                tokenizer=tokenizer,
                examples=train,
                loss=loss,
                settings=settings.preference,
                seed=settings.seed,
                every=settings.checkpoint_every,
                shard=settings.shard,
            )
            told = kept.write(folder, model=settings.model)
            with uncounted():
                figures = _measured(measure_examples(model, loss, held), begun, held)
            facts = {name: figure.to_json() for name, figure in figures.items()}
            told |= of_adapters(settings, model, tokenizer, folder)
            return {"pairs" if train.labels is None else "responses": len(train.rows), **facts, **told}

        say_done(stage.run(work, spent=spent))
        if train.labels is None:
            say_next("evaluate", "--model", str(stage.folder), "--reference", settings.model, "--data", "OTHER_PAIRS")
        else:  # `evaluate` measures pairs, which there may be none of
            say_next("generate", "--model", str(stage.folder), "--prompt", "TEXT", why="read what it answers")
        return stage.folder


def _prepared(model: PreTrainedModel, examples: Examples, loss: Loss, settings: TuneRun) -> tuple[Examples, Cost]:
    """What the objective needs of the reference, which `model` still is."""
    if "reference" not in loss.needs:
        return examples, Cost()
    with task("reference", len(examples.rows)) as progress:
        telling = {"say": say, "progress": progress.advance}
        return prepare(model, examples.rows, loss.needs, labels=examples.labels, seed=settings.seed, **telling)


def _measured(found: ExampleFigures, begun: ExampleFigures | None, held: Examples) -> dict[str, Estimate]:
    """What is known of the held-out examples, and the sentence on each figure that a person should read."""
    prompts = [row.prompt for row in held.rows]
    figures = {"heldout_loss": estimate(found.losses, prompts)}
    if held.labels is not None and found.log_ratios is not None:
        loss = figures["heldout_loss"]
        say(f"held-out loss: {words.decimal(loss.mean)} ({words.sureness(loss)})")
        apart = told_apart([ratio for (ratio,) in found.log_ratios], held.labels, prompts)
        if apart is None:
            say("held-out responses: all have the same label; whether the two are told apart cannot be measured")
            return figures
        say_share("a desirable held-out response moved up by more than an undesirable one", apart, "comparison")
        return figures | {"heldout_told_apart": apart}
    own = found.own_wins and share(found.own_wins, prompts)
    if found.log_ratios is not None:
        figures |= of_pairs(found.log_ratios, held.rows)
        say_share("held-out accuracy", figures["heldout_accuracy"], "pair")
    if own:
        figures["heldout_own_accuracy"] = own
        if own != figures.get("heldout_accuracy"):
            say_share("held-out accuracy by the objective's own criterion", own, "pair")
        if begun and begun.own_wins and found.own_wins:
            figures["heldout_own_accuracy_before"] = share(begun.own_wins, prompts)
            difference = paired_difference(found.own_wins, begun.own_wins, prompts)
            say_change(figures["heldout_own_accuracy_before"], difference)
    return figures


def _split_examples(settings: TuneRun, loss: Loss) -> tuple[Examples, Examples, Tokenizer, Kept]:
    """Pairs, or labelled responses where the data are those: (training, held-out, the tokenizer, what is kept)."""
    if not has_labels(given(settings.data, "data"), asked=asked_of(settings)):
        split = split_pairs(settings, margins=OF_LOSS if OF_ROWS in loss.arguments else UNUSED)
        return Examples(split.train), Examples(split.heldout), split.tokenizer, split.kept
    if not loss.takes_labels:
        takers = ", ".join(objective.name for objective in OBJECTIVES.values() if objective.unpaired)
        raise InputError(
            f"data: holds single responses with labels, and {settings.preference.objective} takes pairs; "
            f"objectives that take labels are {takers}"
        )
    data = read_labelled(settings.data, asked=asked_of(settings))
    say_reading(data)
    for finding in check_labelled(data.rows):
        say(f"data: {finding.message}")
    if len({row.label for row in data.rows}) < 2:
        raise InputError("data: every row has the same label; there is nothing to tell apart")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    data = in_format(data, tokenizer, settings.prompt_format)
    halves, places = [], []
    parts = split_by_prompt(data.rows, heldout=heldout_size(settings.heldout), seed=settings.seed)
    for rows in parts:
        encoded = encode_demonstrations(rows, tokenizer, max_tokens=settings.max_tokens)
        say_truncation(encoded.remarks)
        halves.append(Examples(encoded.rows, [row.label for row in rows]))
        places.append(encoded.place)
    train, held = halves
    check_rows(train.rows, held.rows, tokenizer, end_ids=end_ids(tokenizer), places=(places[0], places[1]))
    say(f"data: {len(train.rows):,} training and {counted(len(held.rows), 'held-out response')}")
    say_numbers(train.rows, "response")
    return train, held, tokenizer, Kept(hashes_of(row.prompt for row in parts[0]), data.skipped, data.prompt_format)
