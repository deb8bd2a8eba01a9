"""Each command as a function of its settings: what the command line runs, and what Python code may call."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pairtune.comparison.run import compare
from pairtune.data.check import check_pairs, check_skipped
from pairtune.data.pack import Tokens
from pairtune.data.schema import Pair, Skipped
from pairtune.data.sources import read_demonstrations, read_pairs, read_prompts
from pairtune.data.split import split_by_prompt
from pairtune.data.tokenize import Encoded, encode_demonstrations, encode_pairs, encode_prompt
from pairtune.engine.cost import Cost, measured
from pairtune.engine.reference import reference_logprobs
from pairtune.errors import InputError
from pairtune.evaluation.heldout import margins, reward_margins, wins
from pairtune.evaluation.policy import log_ratios_to, repetition, write_answers
from pairtune.evaluation.statistics import Estimate, estimate
from pairtune.models.heads import ScalarModel, load_scalar_model
from pairtune.models.load import Tokenizer, frozen_copy, load_model, load_tokenizer, save_model
from pairtune.models.machine import Machine, choose_machine
from pairtune.objectives.catalog import OBJECTIVES
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
from pairtune.training.checkpoint import Journal
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference
from pairtune.training.preflight import check_engine, check_first_loss, check_rows
from pairtune.training.reward import normalise, score_rewards, train_reward
from pairtune.training.sft import train_sft
from pairtune.training.step import TOKENS_PER_PASS


def run_compare(settings: CompareRun) -> Path:
    """Compare methods; report.html and a table on the terminal. Returns the run's folder."""
    out = compare(settings)
    report = page.write(out)
    terminal.show(json.loads((out / "summary.json").read_text(encoding="utf-8")), Console())
    say(f"report: {report}")
    return out


def run_sft(settings: SftRun) -> Path:
    """Fine-tune on demonstrations. Returns the folder of the result."""
    machine, tokenizer, model = _start(settings, settings.model)
    data = read_demonstrations(_given(settings.data, "data"))
    _say_skipped(data.skipped)
    encoded = encode_demonstrations(data.rows, tokenizer, max_tokens=settings.max_tokens)
    _say_truncation(encoded)
    check_engine(model, encoded.rows)
    out = _open(settings, "sft", settings.out)
    with measured() as cost:
        train_sft(model, encoded.rows, settings.sft, seed=settings.seed, journal=Journal("sft", out))
    save_model(model, tokenizer, out)
    return _finish(out, {"demonstrations": len(encoded.rows)}, cost)


def run_reward(settings: RewardRun) -> Path:
    """Train a reward model and measure it on held-out pairs. Returns the folder of the result."""
    machine, tokenizer, body = _start(settings, settings.model)
    train, heldout = _read_and_split(settings.data, settings.heldout, settings.max_tokens, settings.seed, tokenizer)
    check_engine(body, train)
    out = _open(settings, "reward", settings.out)
    model = ScalarModel(body, seed=settings.seed)
    with measured() as cost:
        train_reward(model, train, settings.reward, seed=settings.seed, journal=Journal("reward", out))
    normalise(model, train)
    model.save(out, tokenizer)
    accuracy = _accuracy(reward_margins(model, heldout), heldout)
    return _finish(out, {"pairs": len(train), "heldout_accuracy": accuracy.to_json()}, cost)


def run_tune(settings: TuneRun) -> Path:
    """Tune on preference pairs and measure on held-out pairs. Returns the folder of the result."""
    known_objective(settings.preference.objective)
    machine, tokenizer, model = _start(settings, settings.model)
    train, heldout = _read_and_split(settings.data, settings.heldout, settings.max_tokens, settings.seed, tokenizer)
    rounding = check_engine(model, train)
    out = _open(settings, "tune", settings.out)
    tokens_per_pass = TOKENS_PER_PASS[machine.device.type]
    with task("reference", len(train) + len(heldout)) as progress:
        train_reference, before = reference_logprobs(
            model, train, tokens_per_pass=tokens_per_pass, say=say, progress=progress.advance
        )
        held_reference, _ = reference_logprobs(
            model, heldout, tokens_per_pass=tokens_per_pass, progress=progress.advance
        )
    check_first_loss(model, train, train_reference, rounding)
    journal = Journal(settings.preference.objective, out)
    with measured() as cost:
        train_preference(model, train, train_reference, settings.preference, seed=settings.seed, journal=journal)
    save_model(model, tokenizer, out)
    accuracy = _accuracy(margins(model, heldout, held_reference), heldout)
    return _finish(out, {"pairs": len(train), "heldout_accuracy": accuracy.to_json()}, before + cost)


def run_ppo(settings: PpoRun) -> Path:
    """Train against a reward model with PPO. Returns the folder of the result."""
    machine, tokenizer, policy = _start(settings, settings.model)
    folder = _given(settings.reward_model, "reward_model")
    reward_model, reward_tokenizer = load_scalar_model(folder, machine)
    if reward_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise InputError("reward_model: its tokenizer is not the policy's; train one from the same model")
    value, _ = load_scalar_model(folder, machine)
    reward_model.requires_grad_(False)
    prompts = _prompts(settings.data, settings.max_tokens, tokenizer)
    reference = frozen_copy(policy)
    check_engine(policy, [Tokens(tuple(prompt), (tuple(prompt),)) for prompt in prompts[:8]])
    out = _open(settings, "ppo", settings.out)
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
            journal=Journal("ppo", out),
        )
    save_model(policy, tokenizer, out)
    return _finish(out, {"prompts": len(prompts), "steps": settings.ppo.steps}, cost)


def run_generate(settings: GenerateRun) -> list[str]:
    """Answer one prompt or a file of prompts; print the answers or write them as JSON lines. Returns the answers."""
    if bool(settings.prompt) == bool(settings.data):
        raise InputError("give either --prompt TEXT or --data FILE")
    machine, tokenizer, model = _start(settings, settings.model)
    if settings.prompt:
        prompts = [encode_prompt(settings.prompt, tokenizer)]
    else:
        prompts = _prompts(settings.data, settings.max_tokens, tokenizer)
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
    if settings.out:
        rows = [{"prompt": prompt, "response": text} for prompt, text in zip(asked, texts, strict=True)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(settings.out).write_text(lines, encoding="utf-8")
        say(f"answers: {settings.out}")
        return texts
    for prompt, text in zip(asked, texts, strict=True):
        print(printable(text if settings.prompt else f"{prompt}\n  -> {text}"))
    return texts


def run_evaluate(settings: EvaluateRun) -> dict[str, Any]:
    """Held-out accuracy, sampled KL, length and repetition of a policy against its reference. Returns the figures."""
    machine, tokenizer, policy = _start(settings, settings.model)
    reference = load_model(settings.reference, machine, trust_remote_code=settings.trust_remote_code)
    pairs = _read(settings.data)
    encoded = encode_pairs(pairs, tokenizer, max_tokens=settings.max_tokens)
    _say_truncation(encoded)
    rows = encoded.rows
    check_engine(policy, rows)
    frozen, _ = reference_logprobs(reference, rows, tokens_per_pass=TOKENS_PER_PASS[machine.device.type], say=say)
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
        "heldout_accuracy": _accuracy(margins(policy, rows, frozen), rows),
        "kl_from_reference": estimate(log_ratios_to(reference, answers)),
        "response_tokens": estimate([float(len(answer.response)) for answer in answers]),
        "repetition": estimate([repetition(answer.response) for answer in answers]),
    }
    if settings.reward_model:
        reward_model, _ = load_scalar_model(settings.reward_model, machine)
        scores = score_rewards(reward_model, [answer.tokens for answer in answers])
        figures["reward_model_score"] = estimate([score[0] for score in scores])
    result = {name: figure.to_json() for name, figure in figures.items()}
    if settings.out:
        Path(settings.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return result


def known_objective(name: str) -> None:
    """Raises InputError if the catalogue has no objective of that name."""
    if name not in OBJECTIVES:
        raise InputError(f'objective: there is no objective "{name}"; the catalogue has {", ".join(OBJECTIVES)}')


# ---- shared by the commands --------------------------------------------------------------------------------------


def _start(settings: Run, model: str) -> tuple[Machine, Tokenizer, Any]:
    machine = choose_machine(settings.dtype)
    say(f"machine: {machine}")
    tokenizer = load_tokenizer(model, trust_remote_code=settings.trust_remote_code)
    return machine, tokenizer, load_model(model, machine, trust_remote_code=settings.trust_remote_code)


def _given(value: str, name: str) -> str:
    if not value:
        raise InputError(f"{name} is missing; give --{name.replace('_', '-')}")
    return value


def _read(source: str) -> tuple[Pair, ...]:
    data = read_pairs(_given(source, "data"))
    for finding in (*check_skipped(data.skipped), *check_pairs(data.rows)):
        say(f"data: {finding.message}")
    return data.rows


def _read_and_split(
    source: str, heldout: float, max_tokens: int, seed: int, tokenizer: Tokenizer
) -> tuple[Sequence[Tokens], Sequence[Tokens]]:
    """Pairs read, checked, split by prompt and tokenised: (training, held-out)."""
    pairs = _read(source)
    train, held = split_by_prompt(pairs, heldout=heldout if heldout < 1 else int(heldout), seed=seed)
    encoded = encode_pairs(train, tokenizer, max_tokens=max_tokens)
    _say_truncation(encoded)
    held_rows = encode_pairs(held, tokenizer, max_tokens=max_tokens).rows
    train_rows = encoded.rows
    check_rows(train_rows, held_rows, tokenizer, end_id=tokenizer.eos_token_id, bos_id=tokenizer.bos_token_id)
    say(f"data: {len(train_rows)} training and {len(held_rows)} held-out pairs")
    return train_rows, held_rows


def _prompts(source: str, max_tokens: int, tokenizer: Tokenizer) -> list[list[int]]:
    data = read_prompts(_given(source, "data"))
    _say_skipped(data.skipped)
    return [encode_prompt(row.prompt, tokenizer)[-max_tokens:] for row in data.rows]


def _say_skipped(skipped: Sequence[Skipped]) -> None:
    for finding in check_skipped(skipped):
        say(f"data: {finding.message}")


def _say_truncation(encoded: Encoded) -> None:
    for rows, what in (
        (encoded.shortened, "prompts lost their beginning to --max-tokens"),
        (encoded.cut, "rows have a response that lost its end to --max-tokens"),
        (encoded.dropped, "pairs were left out: their responses are the same once tokenised"),
    ):
        if rows:
            say(f"data: {len(rows)} {what} (rows {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''})")


def _open(settings: Run, command: str, out: str) -> Path:
    """The result's folder. One that holds an unfinished run of the same settings is gone on with."""
    folder = Path(out or f"runs/{command}")
    plan = json.dumps({"command": command} | to_mapping(settings), indent=2, sort_keys=True)
    path = folder / "settings.json"
    if folder.is_dir() and any(folder.iterdir()):
        if not path.is_file() or path.read_text(encoding="utf-8") != plan:
            raise InputError(f'out: "{folder}" is not empty and holds something else; give another --out, or remove it')
        if (folder / "result.json").is_file():
            raise InputError(f'out: "{folder}" holds the finished result of this command; give another --out')
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(plan, encoding="utf-8")
    return folder


def _finish(out: Path, facts: dict[str, Any], cost: Cost) -> Path:
    (out / "result.json").write_text(json.dumps(facts | {"cost": cost.to_json()}, indent=2) + "\n", encoding="utf-8")
    accuracy = facts.get("heldout_accuracy")
    if accuracy:
        say(f"held-out accuracy: {Estimate.from_json(accuracy)}")
    say(f"done in {duration(cost.seconds)}, peak memory {cost.peak_memory_bytes / 1e9:.1f} GB: {out}")
    return out


def _accuracy(margin_N: Sequence[float], rows: Sequence[Tokens]) -> Estimate:
    return estimate(wins(margin_N), [row.prompt for row in rows])
