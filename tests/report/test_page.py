"""The page: complete, offline, safe from what it shows, and readable when parts are missing."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pairtune.errors import InputError
from pairtune.report import page
from pairtune.report.glossary import glossary

HOSTILE = "<script>alert(1)</script>\x1b[31mred\x07\u202eevil\u2066\ud800{{ 7*7 }}$x_1$&\"'"
VOID = {"meta", "br", "path", "use", "rect"}


class Outline(HTMLParser):
    """Tags in order, every id and every link; fails on tags that don't close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), "an event handler"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


PAGES: dict[tuple[bytes, ...], str] = {}
"""Pages by the bytes that they were made from: most tests read the same one, and drawing it takes seconds."""


def read_page(run_dir: Path) -> str:
    made_from = tuple(path.read_bytes() for path in sorted(run_dir.glob("*.json*")))
    if made_from not in PAGES:
        path = page.write(run_dir)
        assert path == run_dir / "report.html"
        PAGES[made_from] = path.read_text(encoding="utf-8")
        Outline(PAGES[made_from])
    return PAGES[made_from]


def write_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    (run_dir / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def test_in_the_order_a_reader_asks(run_dir: Path) -> None:
    text = read_page(run_dir)
    order = (
        "DPO and PPO, compared",
        "1,024 to train on, 512 held out",
        "DPO has a higher gold reward",
        "<h2>The arms",
        "<h2>Paired differences",
        "<h2>Learning curves",
        "<h2>Training curves",
        "<h2>Generations",
        "<h2>Glossary",
        "<h2>How it was run",
        "beta: 0.1",
    )
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_with_a_grid_what_to_watch_comes_first(grid_dir: Path) -> None:
    text = read_page(grid_dir)
    order = (
        "DPO, IPO, dpo+0.2*sft, SimPO and PPO, compared",
        "1,024 to train on, 200 to choose on, 512 held out",
        "DPO has a higher gold reward",
        "<h2>What to watch",
        "<dd>Chosen responses became less probable on 61% of held-out pairs",
        '<a href="#chosen_fell">Chosen fell</a>',
        "<dd>Answers are 4.1 tokens longer",
        "<dd>31% of an answer&#39;s 3-grams",
        "<h2>The arms",
        '<a href="#parameters">Settings of the objective',
        '<a href="#heldout_accuracy">Held-out accuracy',
        '<a href="#heldout_own_accuracy">Own criterion',
        '<a href="#distinct_bigrams">',
        '<a href="#chosen_nats_per_token">',
        '<a href="#rejected_nats_per_token">',
        '<a href="#chosen_fell">',
        '<a href="#margin_length_correlation">',
        "<h2>Paired differences",
        "<h2>The grid",
        "<h2>Learning curves",
        ">Response tokens<",
        ">Chosen response (nats per token)<",
        "<h2>Training curves",
    )
    place = 0
    for words in order:
        place = text.index(words, place)
    assert re.search(r'"#heldout_own_accuracy">Own criterion</a></th><td>\s*<span class="value">–</span>', text), (
        "the reference"
    )
    for words in (
        "−0.037 to −0.025, n 512",
        "−0.070 to −0.050, n 512",
        "57.3 to 65.3%, n 512",
        "no interval, n 256",
        "beta 2, gamma 0.5",
    ):
        assert words in text.replace("\u00a0", " ")
    assert text.count("best of 4 on validation") == 4
    assert text.count("best of 4 (1 failed) on validation") == 1


def test_the_grid_tells_how_it_was_chosen(grid_dir: Path, grid_summary: dict[str, Any]) -> None:
    text = read_page(grid_dir)
    section = text[text.index("<h2>The grid") : text.index("<h2>Learning curves")]
    assert "measured on the validation split (200 pairs), never on held-out data" in section
    assert "the candidate with the highest mean gold reward there was chosen" in section
    assert section.count("<svg") == 6, "all methods, then each by itself"
    assert section.count('<tr class="chosen">') == 5
    assert "DPO</span> · 4 candidates, 325 s in all" in section
    assert "SimPO</span> · 4 candidates, 244 s in all" in section, "one failed"
    assert len(re.findall(r'<th scope="row">', section)) == 20
    for setting in ("beta 0.1", "beta 2", "kl coefficient 0.02"):
        assert f'<tr class="chosen"><th scope="row">{setting}<span class="note">chosen</span>' in section
    assert '<td colspan="6"><b>Failed.</b> RuntimeError: the loss is not a number at step 12</td>' in section
    grid_summary["gold_scorer"]["kind"] = "judge"
    grid_summary["grid"] = {"dpo": grid_summary["grid"]["dpo"]}
    write_summary(grid_dir, grid_summary)
    text = read_page(grid_dir)
    section = text[text.index("<h2>The grid") : text.index("<h2>Learning curves")]
    assert "the highest mean judge score there was chosen" in section
    assert section.count("<svg") == 1, "one method needs no figure of all"


def test_runs_of_earlier_versions_have_no_empty_rows(run_dir: Path) -> None:
    text = read_page(run_dir)
    for words in ("<h2>What to watch", "<h2>The grid", "Own criterion</a>", "Chosen fell</a>", "to choose on"):
        assert words not in text
    assert "Settings of the objective</a>" not in text
    assert "Chosen response (nats" not in text


def test_every_figure_stands_with_its_n_and_interval(run_dir: Path) -> None:
    text = read_page(run_dir).replace("\u00a0", " ")
    for words in (
        "0.53 to 0.71, n 256",
        "67.3 to 75.1%, n 512",
        "2.29 to 2.71, n 256",
        "−1.6 to 2.2, n 256",
    ):
        assert words in text
    for words in ("339 s", "reward 212 s + ppo 2,971 s", "2.9×10¹⁵", "5.4 GB", "1,204,221", "gae_lambda"):
        assert words in text


def test_bold_means_detectable(run_dir: Path) -> None:
    text = read_page(run_dir)
    assert '<span class="value strong">7.2 points</span>' in text
    assert '<span class="value">0.3</span>' in text


def test_opens_offline_and_runs_nothing(run_dir: Path) -> None:
    text = read_page(run_dir)
    outline = Outline(text)
    assert "default-src 'none'" in text
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(outline.tags)
    assert all(link.startswith("#") for link in outline.links)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", text)


def test_links_land_and_ids_are_unique(run_dir: Path, summary: dict[str, Any]) -> None:
    outline = Outline(read_page(run_dir))
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links} <= set(outline.ids)
    assert {term.key for term in glossary(summary)} <= set(outline.ids)


def test_generations_follow_a_rule_and_say_so(run_dir: Path) -> None:
    text = read_page(run_dir)
    assert "The first 12 of 20 prompts by index" in text
    assert re.findall(r"Prompt (\d+)<", text) == [str(index) for index in range(12)]
    assert text.count('<div class="response"') == 36


def test_the_same_records_give_the_same_page(run_dir: Path) -> None:
    assert read_page(run_dir) == read_page(run_dir)


def test_hostile_text_is_shown_not_obeyed(run_dir: Path, summary: dict[str, Any], rewrite: Callable[..., None]) -> None:
    summary["model"] = summary["data"] = summary["preset"] = summary["verdict"] = HOSTILE
    summary["arms"][HOSTILE] = summary["arms"].pop("ppo")
    summary["arms"][HOSTILE]["settings_to_tune"] = [HOSTILE]
    summary["arms"][HOSTILE]["seconds"] = {HOSTILE: 1.0, "other": 2.0}
    summary["failed"] = {"ipo": HOSTILE}
    write_summary(run_dir, summary)
    sample = {"prompt_index": 0, "prompt": HOSTILE, "arm": HOSTILE, "response": HOSTILE, "gold_score": 1.0}
    rewrite(run_dir / "samples.jsonl", [sample])
    score = {"mean": 0.5, "n": 9, "ci95": [0.4, 0.6]}
    rewrite(
        run_dir / "records.jsonl",
        [
            {"kind": "step", "stage": HOSTILE, "step": 1, "seconds": 1, "loss": 0.7, HOSTILE: 1.0},
            {"kind": "evaluation", "arm": HOSTILE, "step": 1, "seconds": 1, "gold_score": score},
        ],
    )
    (run_dir / "plan.yaml").write_text(HOSTILE.replace("\ud800", ""), encoding="utf-8")
    (run_dir / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}), encoding="utf-8")
    text = read_page(run_dir)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;␛[31mred␇‹U+202E›evil‹U+2066›" in text
    assert "‹U+D800›" in text
    assert not set(text) & set("\x1b\x07\u202e\u2066")
    assert "{{ 7*7 }}" in text


def test_hostile_text_in_a_grid_is_shown_not_obeyed(grid_dir: Path, grid_summary: dict[str, Any]) -> None:
    summary = grid_summary
    summary["arms"][HOSTILE] = summary["arms"].pop("ipo") | {"parameters": {HOSTILE: HOSTILE}}
    summary["notices"] = [{"arm": HOSTILE, "figure": HOSTILE, "text": HOSTILE}, {"arm": None, "text": None}]
    for place, row in enumerate(summary["grid"]["ipo"]):
        row["parameters"] = {HOSTILE: f"{place}{HOSTILE}"}
    summary["grid"]["ipo"][1]["failed"] = summary["grid"]["ipo"][1]["arm"] = HOSTILE
    summary["grid"][HOSTILE] = summary["grid"].pop("ipo")
    write_summary(grid_dir, summary)
    text = read_page(grid_dir)
    assert "<script" not in text
    assert not set(text) & set("\x1b\x07\u202e\u2066\ud800")
    for before in ("<dd>", "<b>Failed.</b> ", '<span class="prose">'):
        assert f"{before}&lt;script&gt;alert(1)&lt;/script&gt;␛[31mred␇‹U+202E›evil" in text


def test_a_failed_arm_is_told_and_left_out(run_dir: Path, summary: dict[str, Any]) -> None:
    summary["failed"] = {"ppo": "out of memory at step 3"}
    write_summary(run_dir, summary)
    text = read_page(run_dir)
    assert "<b>PPO failed.</b> out of memory at step 3" in text
    assert "<h1>DPO</h1>" in text


def test_missing_parts_are_named(run_dir: Path, summary: dict[str, Any]) -> None:
    for name in ("plan.yaml", "environment.json", "records.jsonl", "samples.jsonl"):
        (run_dir / name).unlink()
    for arm in summary["arms"].values():
        arm["gold_score"] = None
    write_summary(run_dir, {"arms": summary["arms"]})
    text = read_page(run_dir)
    for words in (
        "No evaluation was saved",
        "No training step was saved",
        "No sample was saved",
        "No verdict yet",
    ):
        assert words in text
    assert "Neither the plan nor the environment was saved" in text
    write_summary(run_dir, {"arms": {}})
    assert "No arm finished" in read_page(run_dir)


def test_a_judge_is_called_a_judge(run_dir: Path, summary: dict[str, Any]) -> None:
    summary["gold_scorer"]["kind"] = "judge"
    write_summary(run_dir, summary)
    text = read_page(run_dir)
    assert "<dt>Judge</dt>" in text
    assert "Judge score (sd) over KL" in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", None, "holds no summary.json"),
        ("summary.json", "{", "summary.json is not JSON"),
        ("summary.json", "[]", "summary.json must hold a JSON object"),
        ("summary.json", '{"arms": [1]}', '"arms" must map'),
        ("summary.json", '{"arms": {"dpo": {"gold_score": 3}}}', "should be a mean with its n and ci95"),
        ("summary.json", '{"arms": {"dpo": {"parameters": [1]}}}', '"parameters" of an arm must map'),
        ("summary.json", '{"arms": {}, "grid": [1]}', '"grid" must map each method'),
        ("summary.json", '{"arms": {}, "grid": {"dpo": 3}}', '"grid" must map each method'),
        ("summary.json", '{"arms": {}, "grid": {"dpo": [{"arm": "dpo"}]}}', 'each with its "parameters"'),
        ("summary.json", '{"arms": {}, "notices": {"dpo": "text"}}', '"notices" must be a list'),
        ("summary.json", "[" * 100_000, "nested too deeply"),
        ("records.jsonl", '\n{"kind": "step"}', 'records.jsonl:2: "step" must be a whole number'),
        ("samples.jsonl", '{"prompt_index": 0, "prompt": 3}', 'samples.jsonl:1: "prompt" must be text'),
        ("plan.yaml", b"\xff", "plan.yaml cannot be read"),
    ],
)
def test_an_unreadable_run_is_one_plain_line(run_dir: Path, name: str, content: str | bytes | None, words: str) -> None:
    path = run_dir / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        page.write(run_dir)
    assert "\n" not in str(caught.value)


def test_no_directory_and_no_room_to_write(tmp_path: Path, run_dir: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        page.write(tmp_path / "nowhere")
    (run_dir / "report.html").mkdir()
    with pytest.raises(InputError, match=r'report\.html" is no ordinary file'):
        page.write(run_dir)


def test_the_report_loads_no_model_code() -> None:
    code = (
        "import sys, pairtune.report.page, pairtune.report.terminal, pairtune.report.verdict;"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('pairtune.')};"
        "assert rooms == {'report', 'disk', 'errors', 'estimate'}, rooms;"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_judge_is_nowhere_called_gold(run_dir: Path, grid_dir: Path) -> None:
    """Not in tables, titles of figures, generations or the glossary; where the labels are gold, it is no judge."""
    for folder in (run_dir, grid_dir):
        summary = json.loads((folder / "summary.json").read_text())
        text = read_page(folder)
        assert "Gold reward" in text
        assert "gold reward −" in text or "gold reward 0" in text, "beside each response"
        assert "judge" not in visible(text).lower()
        summary["gold_scorer"]["kind"] = "judge"
        summary["verdict"] = summary["notices"] = None
        write_summary(folder, summary)
        text = read_page(folder)
        assert "Judge score (sd)" in text, "a figure's title"
        assert "judge score −" in text or "judge score 0" in text
        assert "gold" not in visible(text).lower()


def visible(text: str) -> str:
    """What a page shows: no tags, no attributes."""
    return re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)


def test_an_accuracy_like_chance_is_marked(run_dir: Path, summary: dict[str, Any]) -> None:
    assert "like chance," not in read_page(run_dir).replace("\u00a0", " ")
    level, below = {"mean": 0.535, "n": 200, "ci95": [0.465, 0.6]}, {"mean": 0.42, "n": 200, "ci95": [0.35, 0.49]}
    summary["arms"]["reference"]["heldout_accuracy"] = {"mean": 0.5, "n": 200, "ci95": [0.5, 0.5]}
    summary["arms"]["dpo"]["heldout_accuracy"], summary["reward_model"]["heldout_accuracy"] = level, level
    summary["arms"]["ppo"]["heldout_accuracy"] = below
    write_summary(run_dir, summary)
    text = read_page(run_dir).replace("\u00a0", " ")
    assert "46.5 to 60.0%, n 200, like chance</span>" in text
    assert "35.0 to 49.0%, n 200, below chance</span>" in text
    assert "50.0 to 50.0%, n 200, all ties</span>" in text
    assert "right on 53.5% of held-out pairs (46.5 to 60.0%, n 200, like chance)" in text


def test_without_a_reward_model_nothing_is_said_of_one(run_dir: Path, summary: dict[str, Any]) -> None:
    for arm in summary["arms"].values():
        del arm["reward_model_score"]
    for fields in summary["differences"].values():
        del fields["reward_model_score"]
    del summary["arms"]["ppo"]
    summary["differences"] = {"dpo - reference": summary["differences"]["dpo - reference"]}
    summary["reward_model"] = None
    write_summary(run_dir, summary)
    (run_dir / "records.jsonl").write_text("")
    text = visible(read_page(run_dir))
    assert "Reward-model" not in text
    assert "Reward model" not in text
