"""Each command as a function of its settings: what the command line runs, and what Python code may call."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from pairtune.comparison.plan import data_hash, model_hash
from pairtune.comparison.run import compare
from pairtune.configure import loss_to_train
from pairtune.data.check import check_pairs, check_skipped
from pairtune.data.pack import Tokens
from pairtune.data.schema import Pair, Skipped
from pairtune.data.sources import has_labels, read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.data.split import split_by_prompt
from pairtune.data.tokenize import encode_demonstrations, encode_pairs, encode_prompt
from pairtune.engine.cost import Cost, measured
from pairtune.engine.examples import Examples, prepare
from pairtune.engine.hidden import TOKENS_PER_PASS
from pairtune.engine.reference import reference_logprobs
from pairtune.engine.scalars import score_rewards
from pairtune.errors import InputError
from pairtune.evaluation.heldout import log_ratios, margins, reward_margins, wins
from pairtune.evaluation.objective import judge
from pairtune.evaluation.policy import log_ratios_to, repetition, write_answers
from pairtune.evaluation.statistics import Estimate, estimate
from pairtune.evaluation.watch import distinct_bigrams, fell, per_token
from pairtune.models.heads import ScalarModel, load_scalar_model
from pairtune.models.load import Tokenizer, frozen_copy, load_model, load_tokenizer, save_model
from pairtune.models.machine import choose_machine
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.mixture import Loss
from pairtune.progress import duration, printable, say, task
from pairtune.report import page, terminal
from pairtune.sampling.sampler import sample
from pairtune.settings import (
    CompareRun,
    EvaluateRun,
    GenerateRun,
    PpoRun,
    RewardRun,
    Run,
    SftRun,
    TuneRun,
    to_mapping,
)
from pairtune.training.checkpoint import Journal, forget_checkpoint
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference
from pairtune.training.preflight import check_engine, check_first_loss, check_rows, say_truncation
from pairtune.training.reward import normalise, train_reward
from pairtune.training.sft import train_sft

# What a result's folder was made with: the settings, and hashes of the data and the models.
SETTINGS_FILE = "settings.json"


def run_compare(settings: CompareRun) -> Path:
    """Compare methods; report.html and a table on the terminal. Returns the run's folder."""
    out = compare(settings)
    report = page.write(out)
    terminal.show(json.loads((out / "summary.json").read_text(encoding="utf-8")), Console())
    say(f"report: {report}")
    return out


def run_sft(settings: SftRun) -> Path:
    """Fine-tune on demonstrations. Returns the folder of the result."""
    out = _result_folder(settings.out, "sft")
    data = read_demonstrations(_given(settings.data, "data"))
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    _say_skipped(data.skipped)
    encoded = encode_demonstrations(data.rows, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(encoded)
    model = _load(settings)
    check_engine(model, encoded.rows)
    _begin(out, settings, "sft")
    with measured() as cost:
        journal = Journal("sft", out, cost=cost)
        train_sft(model, encoded.rows, settings.sft, seed=settings.seed, journal=journal)
    save_model(model, tokenizer, out)
    return _finish(out, {"demonstrations": len(encoded.rows)}, cost)


def run_reward(settings: RewardRun) -> Path:
    """Train a reward model and measure it on held-out pairs. Returns the folder of the result."""
    out = _result_folder(settings.out, "reward")
    train, heldout, tokenizer = _split_pairs(settings)
    body = _load(settings)
    check_engine(body, train)
    _begin(out, settings, "reward")
    model = ScalarModel(body, seed=settings.seed)
    with measured() as cost:
        journal = Journal("reward", out, cost=cost)
        train_reward(model, train, settings.reward, seed=settings.seed, journal=journal)
    normalise(model, train)
    model.save(out, tokenizer)
    accuracy = _accuracy(reward_margins(model, heldout), heldout)
    return _finish(out, {"pairs": len(train), "heldout_accuracy": accuracy.to_json()}, cost)


def run_tune(settings: TuneRun) -> Path:
    """Tune on preference pairs, or on labelled responses, and measure on held-out ones. Returns the result's folder."""
    loss = loss_to_train(settings)
    out = _result_folder(settings.out, "tune")
    train_rows, held_rows, tokenizer = _split_examples(settings, loss)
    model = _load(settings)
    check_engine(model, train_rows.rows)
    _begin(out, settings, "tune")
    train, before = _prepare(model, train_rows, loss, settings)
    held, _ = _prepare(model, held_rows, loss, settings)
    if train.reference is not None:
        check_first_loss(model, train.rows, train.reference)
    with measured() as cost:
        journal = Journal(settings.preference.objective, out, cost=cost)
        train_preference(model, train, loss, settings.preference, seed=settings.seed, journal=journal)
    save_model(model, tokenizer, out)
    judged = judge(model, loss, held)
    prompts = [row.prompt for row in held.rows]
    facts = {"heldout_loss": estimate(judged.losses, prompts).to_json()}
    if judged.own_wins is not None:
        facts["heldout_own_accuracy"] = estimate(judged.own_wins, prompts).to_json()
    if judged.log_ratios is not None:
        facts |= {name: figure.to_json() for name, figure in _of_pairs(judged.log_ratios, held.rows).items()}
    return _finish(out, {"pairs" if train.labels is None else "responses": len(train.rows), **facts}, before + cost)


def run_ppo(settings: PpoRun) -> Path:
    """Train against a reward model with PPO. Returns the folder of the result."""
    out = _result_folder(settings.out, "ppo")
    folder = _given(settings.reward_model, "reward_model")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    prompts = _prompts(settings.data, settings.max_tokens, tokenizer)
    reward_model = _load_reward_model(settings, folder, tokenizer)
    value = _load_reward_model(settings, folder, tokenizer)
    reward_model.requires_grad_(False)
    policy = _load(settings)
    reference = frozen_copy(policy)
    rows = [Tokens(tuple(prompt), (tuple(prompt),)) for prompt in prompts]
    check_engine(policy, rows, others=[reference])
    check_engine(reward_model.body, rows, others=[value.body], quiet=True)
    _begin(out, settings, "ppo")
    with measured() as cost:
        train_ppo(
            policy,
            value,
            reward_model,
            reference,
            prompts,
            settings.ppo,
            settings.sampling,
            end_ids=[tokenizer.eos_token_id],
            seed=settings.seed,
            journal=Journal("ppo", out, cost=cost),
        )
    save_model(policy, tokenizer, out)
    return _finish(out, {"prompts": len(prompts), "steps": settings.ppo.steps}, cost)


def run_generate(settings: GenerateRun) -> list[str]:
    """Answer one prompt or a file of prompts; print the answers or write them as JSON lines. Returns the answers."""
    if bool(settings.prompt) == bool(settings.data):
        raise InputError("give either --prompt TEXT or --data FILE")
    out = _result_file(settings.out)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    if settings.prompt:
        prompts = [encode_prompt(settings.prompt, tokenizer)]
    else:
        prompts = _prompts(settings.data, settings.max_tokens, tokenizer)
    model = _load(settings)
    with task("answers", len(prompts)) as progress:
        answers = sample(
            model,
            prompts,
            end_ids=[tokenizer.eos_token_id],
            max_new_tokens=settings.sampling.max_new_tokens,
            temperature=settings.sampling.temperature,
            batch_size=settings.sampling.batch_size,
            seed=settings.seed,
            progress=progress.advance,
        )
    texts = [str(tokenizer.decode(list(answer.response), skip_special_tokens=True)) for answer in answers]
    asked = [str(tokenizer.decode(prompt)) for prompt in prompts]
    if out:
        rows = [{"prompt": prompt, "response": text} for prompt, text in zip(asked, texts, strict=True)]
        _write(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        say(f"answers: {out}")
        return texts
    for prompt, text in zip(asked, texts, strict=True):
        print(printable(text if settings.prompt else f"{prompt}\n  -> {text}"))
    return texts


def run_evaluate(settings: EvaluateRun) -> dict[str, Any]:
    """Held-out accuracy, sampled KL, length and repetition of a policy against its reference. Returns the figures."""
    out = _result_file(settings.out)
    pairs, tokenizer = _read(settings)
    encoded = encode_pairs(pairs, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(encoded)
    rows = encoded.rows
    judge = _load_reward_model(settings, settings.reward_model, tokenizer) if settings.reward_model else None
    name = _given(settings.reference, "reference")
    if load_tokenizer(name, trust_remote_code=settings.trust_remote_code).get_vocab() != tokenizer.get_vocab():
        raise InputError("reference: its tokenizer is not the policy's; give the model that the policy was tuned from")
    policy = _load(settings)
    reference = load_model(name, choose_machine(settings.dtype), trust_remote_code=settings.trust_remote_code)
    for model in (policy, reference, *([judge.body] if judge else [])):
        check_engine(model, rows, quiet=model is not policy)
    frozen, _ = reference_logprobs(reference, rows, tokens_per_pass=TOKENS_PER_PASS[reference.device.type], say=say)
    prompts = list(dict.fromkeys(row.prompt for row in rows))[: settings.evaluation.prompts]
    with task("answers", len(prompts)) as progress:
        answers = write_answers(
            policy,
            prompts,
            settings.sampling,
            end_ids=[tokenizer.eos_token_id],
            seed=settings.seed,
            progress=progress.advance,
        )
    figures = {
        **_of_pairs(log_ratios(policy, rows, frozen), rows),
        "kl_from_reference": estimate(log_ratios_to(reference, answers, temperature=settings.sampling.temperature)),
        "response_tokens": estimate([float(len(answer.response)) for answer in answers]),
        "repetition": estimate([repetition(answer.response) for answer in answers]),
        "distinct_bigrams": distinct_bigrams([answer.response for answer in answers]),
    }
    if judge:
        scores = score_rewards(judge, [answer.tokens for answer in answers])
        figures["reward_model_score"] = estimate([score[0] for score in scores])
    result = {name: figure.to_json() for name, figure in figures.items()}
    text = json.dumps(result, indent=2)
    if out:
        _write(out, text + "\n")
    print(text)
    return result


# ---- shared by the commands --------------------------------------------------------------------------------------


def _load(settings: Any) -> PreTrainedModel:
    """The command's model, after what is cheap to check has been checked."""
    machine = choose_machine(settings.dtype)
    model = load_model(settings.model, machine, trust_remote_code=settings.trust_remote_code)
    say(f"machine: {machine}")
    return model


def _load_reward_model(settings: Run, folder: str, tokenizer: Tokenizer) -> ScalarModel:
    """A reward model that reads what the policy writes."""
    model, own_tokenizer = load_scalar_model(
        folder, choose_machine(settings.dtype), trust_remote_code=settings.trust_remote_code
    )
    if own_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise InputError("reward_model: its tokenizer is not the policy's; train one from the same model")
    return model


def _given(value: str, name: str) -> str:
    if not value:
        raise InputError(f"{name} is missing; give --{name.replace('_', '-')}")
    return value


def _read(settings: RewardRun | TuneRun | EvaluateRun) -> tuple[Sequence[Pair], Tokenizer]:
    """The pairs, with what is to be said of them, and the model's tokenizer."""
    data = read_pairs(_given(settings.data, "data"))
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    for finding in (*check_skipped(data.skipped), *check_pairs(data.rows)):
        say(f"data: {finding.message}")
    return data.rows, tokenizer


def _split_pairs(settings: RewardRun | TuneRun) -> tuple[Sequence[Tokens], Sequence[Tokens], Tokenizer]:
    """Pairs read, checked, split by prompt and tokenised: (training, held-out, the tokenizer)."""
    heldout = _heldout(settings.heldout)
    pairs, tokenizer = _read(settings)
    train, held = split_by_prompt(pairs, heldout=heldout, seed=settings.seed)
    encoded = [encode_pairs(pairs, tokenizer, max_tokens=settings.max_tokens) for pairs in (train, held)]
    for part in encoded:
        say_truncation(part)
    train_rows, held_rows = (part.rows for part in encoded)
    check_rows(train_rows, held_rows, tokenizer, end_id=tokenizer.eos_token_id, bos_id=tokenizer.bos_token_id)
    say(f"data: {len(train_rows)} training and {len(held_rows)} held-out pairs")
    return train_rows, held_rows, tokenizer


def _heldout(heldout: float) -> int | float:
    """A share below 1, or a number of pairs."""
    if heldout >= 1 and not float(heldout).is_integer():
        raise InputError(f"heldout is {heldout:g}; it must be a share below 1 or a whole number of pairs")
    return int(heldout) if heldout >= 1 else heldout


def _split_examples(settings: TuneRun, loss: Loss) -> tuple[Examples, Examples, Tokenizer]:
    """Pairs, or labelled responses where the data are those: (training, held-out, the tokenizer)."""
    if not has_labels(_given(settings.data, "data")):
        train_pairs, held_pairs, tokenizer = _split_pairs(settings)
        return Examples(train_pairs), Examples(held_pairs), tokenizer
    if not loss.takes_labels:
        takers = ", ".join(objective.name for objective in OBJECTIVES.values() if objective.unpaired)
        raise InputError(
            f"data: holds single responses with labels, and {settings.preference.objective} takes pairs; "
            f"objectives that take labels are {takers}"
        )
    data = read_labelled(settings.data)
    _say_skipped(data.skipped)
    if len({row.label for row in data.rows}) < 2:
        raise InputError("data: every row has the same label; there is nothing to tell apart")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    halves = []
    for rows in split_by_prompt(data.rows, heldout=_heldout(settings.heldout), seed=settings.seed):
        encoded = encode_demonstrations(rows, tokenizer, max_tokens=settings.max_tokens)
        say_truncation(encoded)
        halves.append(Examples(encoded.rows, [row.label for row in rows]))
    train, held = halves
    check_rows(train.rows, held.rows, tokenizer, end_id=tokenizer.eos_token_id, bos_id=tokenizer.bos_token_id)
    say(f"data: {len(train.rows)} training and {len(held.rows)} held-out responses")
    return train, held, tokenizer


def _prepare(model: PreTrainedModel, examples: Examples, loss: Loss, settings: TuneRun) -> tuple[Examples, Cost]:
    """What the objective needs of the reference, which `model` still is."""
    with task("reference", len(examples.rows)) as progress:
        try:
            return prepare(
                model,
                examples.rows,
                loss.arguments,
                needs_reference=loss.needs_reference,
                labels=examples.labels,
                seed=settings.seed,
                tokens_per_pass=TOKENS_PER_PASS[model.device.type],
                say=say,
                progress=progress.advance,
            )
        except ValueError as error:
            raise InputError(f"data: {error}; hold out more, or take another objective") from error


def _prompts(source: str, max_tokens: int, tokenizer: Tokenizer) -> list[list[int]]:
    data = read_prompts(_given(source, "data"))
    _say_skipped(data.skipped)
    return [encode_prompt(row.prompt, tokenizer)[-max_tokens:] for row in data.rows]


def _say_skipped(skipped: Sequence[Skipped]) -> None:
    for finding in check_skipped(skipped):
        say(f"data: {finding.message}")


def _result_folder(out: str, command: str) -> Path:
    """The result's folder, before anything is read or loaded. Raises InputError if it cannot be one."""
    folder = Path(out or f"runs/{command}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f'out: "{folder}" is a file; give a folder')
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / SETTINGS_FILE).is_file():
            raise InputError(f'out: "{folder}" is not empty and holds something else; give another --out')
        if (folder / "result.json").is_file():
            raise InputError(f'out: "{folder}" holds a finished result; give another --out, or remove it')
    return folder


def _begin(folder: Path, settings: Any, command: str) -> None:
    """Make the folder. One that holds an unfinished run of the same command on the same content is gone on with."""
    sources = {name: getattr(settings, name) for name in ("model", "reward_model") if hasattr(settings, name)}
    hashes = {name: model_hash(source) for name, source in sources.items()} | {"data": data_hash(settings.data)}
    plan = json.dumps({"command": command, **to_mapping(settings), "hashes": hashes}, indent=2, sort_keys=True)
    path = folder / SETTINGS_FILE
    if path.is_file() and path.read_text(encoding="utf-8") != plan:
        raise InputError(
            f'out: "{folder}" holds an unfinished run of other settings, data or model; give another --out'
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(plan, encoding="utf-8")


def _result_file(out: str) -> Path | None:
    """The file for the result, if one was asked for. Raises InputError if it cannot be one."""
    if out and Path(out).is_dir():
        raise InputError(f'out: "{out}" is a folder; give a file')
    return Path(out) if out else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _finish(out: Path, facts: dict[str, Any], cost: Cost) -> Path:
    (out / "result.json").write_text(json.dumps(facts | {"cost": cost.to_json()}, indent=2) + "\n", encoding="utf-8")
    forget_checkpoint(out)
    shares = {"heldout_accuracy": "held-out accuracy", "heldout_own_accuracy": "by the objective's own criterion"}
    for name, words in shares.items():
        if name in facts:
            found = Estimate.from_json(facts[name])
            low, high = found.ci95
            say(f"{words}: {found.mean:.1%} (95% interval {low:.1%} to {high:.1%}, n = {found.n})")
    say(f"done in {duration(cost.seconds)}, peak memory {cost.peak_memory_bytes / 1e9:.1f} GB: {out}")
    return out


def _of_pairs(log_ratios: Sequence[Sequence[float]], rows: Sequence[Tokens]) -> dict[str, Estimate]:
    """Held-out accuracy, and what became of the chosen responses on the way."""
    prompts = [row.prompt for row in rows]
    return {
        "heldout_accuracy": _accuracy(margins(log_ratios), rows),
        "chosen_nats_per_token": estimate(per_token(log_ratios, rows, 0), prompts),
        "chosen_fell": estimate(fell(log_ratios), prompts),
    }


def _accuracy(margin_N: Sequence[float], rows: Sequence[Tokens]) -> Estimate:
    return estimate(wins(margin_N), [row.prompt for row in rows])
