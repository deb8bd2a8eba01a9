"""Every data set and tool in the table of those in use is read exactly, or refused in one line that says what to do."""

from dataclasses import replace
from typing import Any

import pytest

from pairtune.data.asked import Asked
from pairtune.data.sources import has_labels, read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.errors import InputError
from tests.data.in_use import CSV, IN_USE, JSON, JSONL, PARQUET, Case, answer, chat, turn, turns, user, write

# Text beside numbers in one column, which Parquet has not.
MIXED = ("UltraFeedback, fine-grained scores alone",)

pytestmark = pytest.mark.usefixtures("inside")


@pytest.mark.parametrize("name", IN_USE)
def test_what_people_have_is_read_exactly_or_refused(name: str) -> None:
    case = IN_USE[name]
    source = write(case)
    if case.refused:
        with pytest.raises(InputError) as error:
            read_pairs(source, asked=case.asked)
        assert case.refused in str(error.value)
        assert "\n" not in str(error.value)
        return
    read: Any = (read_labelled if case.labels else read_pairs)(source, asked=case.asked)
    found = [(row.prompt, row.response, row.label) if case.labels else (row.prompt, row.chosen, row.rejected)
             for row in read.rows]  # fmt: skip
    assert found == [*case.labels, *case.pairs]
    assert {row.weight for row in read.rows} == {1.0}
    assert [skip.reason for skip in read.skipped] == list(case.left_out)
    assert set(read.unread) == set(case.unread)
    assert has_labels(source, asked=case.asked) is bool(case.labels)


@pytest.mark.parametrize("name", [name for name, case in IN_USE.items() if not case.refused])
def test_rows_say_the_same_in_every_container(name: str) -> None:
    """What is an object or a list in JSON lines is JSON text in a CSV's cell, and a nested value of Parquet's."""
    case = IN_USE[name]
    for container in {JSONL, JSON, CSV, PARQUET} - {case.name, *([PARQUET] if name in MIXED else [])}:
        source = write(replace(case, name=container))
        if case.labels:
            labelled = read_labelled(source, asked=case.asked).rows
            assert [(row.prompt, row.response, row.label) for row in labelled] == list(case.labels)
        else:
            rows = read_pairs(source, asked=case.asked).rows
            assert [(row.prompt, row.chosen, row.rejected) for row in rows] == list(case.pairs), container


@pytest.mark.parametrize("name", [name for name, case in IN_USE.items() if not case.refused])
def test_prompts_and_demonstrations_are_those_of_the_same_rows(name: str) -> None:
    case = IN_USE[name]
    source, rows = write(case), [*case.labels, *case.pairs]
    prompts = [row.prompt for row in read_prompts(source, asked=case.asked).rows]
    assert [prompt for prompt in dict.fromkeys(prompts) if prompt in {row[0] for row in rows}] == [
        row[0] for row in rows
    ]
    shown = read_demonstrations(source, asked=case.asked)
    if name in (
        "HelpSteer2",
        "scored outputs",
    ):  # good and poor answers, and it is told that their score is not read
        assert len(shown.rows) == 2 * len(rows)
        assert shown.unread == ({"HelpSteer2": "helpfulness", "scored outputs": "score"}[name],)
    else:
        assert [(row.prompt, row.response) for row in shown.rows] == [row[:2] for row in rows]


def test_most_are_read_by_themselves() -> None:
    by_itself = [case for case in IN_USE.values() if not case.refused and not case.asked.columns]
    assert len(by_itself) >= 70


AB, ONE_TWO, NOUGHT_ONE = ("response_a", "response_b"), ("output_1", "output_2"), ("response_0", "response_1")


def verdicts(values: list[Any], column: str = "winner", names: tuple[str, str] = AB, **more: list[Any]) -> list[Any]:
    """A row for each verdict on x and y, with what else stands beside it."""
    rows = [{"prompt": f"{at}?", names[0]: "x", names[1]: "y", column: value} for at, value in enumerate(values)]
    return [row | {name: each[at] for name, each in more.items()} for at, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        # who gave an answer is its name, whatever letter or digit it ends with
        (verdicts(["vicuna-b", "llama-a"], model_a=["vicuna-b"] * 2, model_b=["llama-a"] * 2), "xy"),
        (verdicts(["m-1", "m-2"], names=ONE_TWO, generator_1=["m-2"] * 2, generator_2=["m-1"] * 2), "yx"),
        # what stands in brackets or after a noun is a letter, what compares is read as it says
        (verdicts(["[[A]]", "[[B]]", "Assistant A", "(b)", "Response B."]), "xyxyy"),
        (verdicts(["A>B", "A<B", "B>A", "B<A", "A>>B", "[[B>>A]]", "A=B", "B==A"]), "xyyxxy"),
        (verdicts(["Tie", "tied", "both_bad", "bothbad", "tie (bothbad)", "Neither is good", "a"]), "x"),
        (verdicts(["A is better", "B-is-slightly-better", "Response B is much better."]), "xyy"),
        (verdicts(["Response 2 is better", "2 wins"], names=("response_1", "response_2")), "yy"),
        (verdicts([" 1", "response_0", "0"], names=NOUGHT_ONE), "yxx"),
        # a column that is about something else does not turn it round
        (verdicts([0, 1], "better_response_id", NOUGHT_ONE, label=[1, 0]), "xy"),
        (verdicts(["a", "b"], label=["spam", "ham"], choice=["?", "?"]), "xy"),
        (verdicts([0, 1.2, 2], "preference", ONE_TWO), "xy"),  # AlpacaEval's tie of old
    ],
)
def test_verdicts_are_not_turned_round(rows: list[Any], chosen: str) -> None:
    assert [pair.chosen for pair in read_pairs(write(Case(rows))).rows] == list(chosen)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (verdicts(["vicuna-b", "llama-a"]), '"winner" is "vicuna-b", which names neither'),
        (verdicts(["gpt-4-1"], names=ONE_TWO), '"winner" is "gpt-4-1", which names neither'),
        (verdicts([1, 0, 0], "preference", ONE_TWO), '"preference" is 0; for "output_1" and "output_2" it must be'),
        (verdicts([1, 5, 3], "overall_preference", ONE_TWO), '"overall_preference" goes from 1 to 5: never below zero'),
        (verdicts([0.1, 0.9], "overall_preference", ONE_TWO), "from 0.1 to 0.9: never below zero, where the first"),
        (verdicts([1, 2] * 10, "preference_strength", ONE_TWO), "from 1 to 2: never below zero"),
        (verdicts(["a", "b"], preference=["a", "a"]), '"winner" and "preference" name different answers; --columns'),
        (verdicts(["a", None], preference=[None, "a"]), "line 2: it is judged by preference, and rows before"),
        (verdicts(["a", None], score_a=[1, 2], score_b=[2, 1]), "line 2: there is no verdict; a pair needs one"),
        (verdicts([float("nan"), "a"]), "line 1: there is no verdict"),
        (verdicts([None, 1], "better_response_id", NOUGHT_ONE, safer_response_id=[1, 1]), "there is no verdict"),
        ([{"prompt": "?", "responses": ["x", "y", "z"], "rankings": [2, 0, 1]}],
         '"rankings" may be each answer\'s rank or the answers\' numbers from the best on; if it is the rank, say '
         "--columns ranks=rankings"),
        ([{"prompt": "?", "completions": [{"text": "x", "good": True}, {"text": "y", "good": False}]}],
         '"completions" has no score or rank in it that is known (its keys are "text", "good"); give each answer a'),
        (verdicts(["A is worse"]), '"winner" is "A is worse", which names neither'),
        (verdicts(["left"], "comparison"), '"response_a" and "response_b" have no verdict that is'),
        ([{"text": "Why so?", "response_a": "x", "response_b": "y", "winner": "a"}],
         'no column is known to be the prompt; if "text" is: --columns prompt=text'),
        ([{"text": "Why so?", "responses": ["x", "y"], "scores": [1, 2]}], 'if "text" is: --columns prompt=text'),
        ([{"prompt": "?", "response": "x", "score": 1}],
         "it has one answer with a score (those to one prompt must follow each other); for answers that stand alone: "
         "--columns label=SCORE --label-threshold N"),
        ([{"prompt": "['1?']", "response_a": "['x']", "response_b": "['y']", "winner": "a"}],
         '"prompt" holds a list as Python prints it, which is not JSON; write them as JSON, with json.dumps'),
        ([{"prompt": "1?", "chosen": "['x']", "rejected": "['y' 'z']", "num_correct": 1}],
         '"chosen" holds a list as Python prints it'),
        ([{"instruction": "1?", "history": "[['a', 'b']]", "chosen": "x", "rejected": "y"}],
         '"history" holds a list as Python prints it'),
        ([{"prompt": "?", "chosen": ["?", "x"], "rejected": ["?", "y"]}],
         '"chosen" and "rejected" are lists that begin with the same text; if those are turns'),
        ([{"prompt": "?", "history": ["a", "b"], "chosen": "x", "rejected": "y"}], '"history" 1 is text; an exchange'),
    ],
)  # fmt: skip
def test_what_could_be_read_wrongly_is_refused(rows: list[Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        read_pairs(write(Case(rows)))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": [turn("human", "Sky?")], "chosen": [turn("gpt", "x")], "rejected": [turn("AI", "y")]},
         turns("Sky?")),
        ({"prompt": [turn("developer", "Be."), user("Sky?")], "chosen": [answer("x")], "rejected": [answer("y")]},
         None),
        ({"prompt": {"messages": [user("Sky?")]}, "chosen": "x", "rejected": "y"}, turns("Sky?")),
        ({"question": {"text": "Sky?"}, "chosen": {"text": "x", "model": "m"}, "rejected": {"text": "y"}}, "Sky?"),
        ({"system_message": "Be.", "prompt": "Sky?", "chosen": "x", "rejected": "y"}, turns("Sky?", system="Be.")),
        ({"prompt": "Sky?", "history": [["1?", "z"]], "chosen": "x", "rejected": "y"}, turns("1?", "z", "Sky?")),
        ({"prompt": "Sky?", "history": chat("1?", "z"), "chosen": "x", "rejected": "y"}, turns("1?", "z", "Sky?")),
    ],
)  # fmt: skip
def test_no_turn_is_dropped_and_no_speaker_misnamed(row: dict[str, Any], prompt: Any) -> None:
    read = read_pairs(write(Case([row])))
    (pair,) = read.rows
    assert (pair.chosen, pair.rejected, read.unread) == ("x", "y", ())
    roles = [message.role for message in pair.prompt] if prompt is None and isinstance(pair.prompt, tuple) else []
    assert roles == ["developer", "user"] if prompt is None else pair.prompt == prompt


@pytest.mark.parametrize("name", [JSONL, CSV])
@pytest.mark.parametrize(
    ("good", "bad"),
    [(True, False), ("True", "false"), ("chosen", "rejected"), ("👍", "👎"), ("yes", "no"), (1.0, 0.0), (1, -1)],
)
def test_labels_in_words_and_numbers(name: str, good: Any, bad: Any) -> None:
    rows = [{"prompt": "?", "completion": "x", "label": label} for label in (good, bad, bad)]
    assert [row.label for row in read_labelled(write(Case(rows, name=name))).rows] == [True, False, False]


def test_columns_and_format_go_with_every_shape() -> None:
    def read(name: str, *, format: str = "auto", **columns: str) -> list[tuple[Any, ...]]:
        rows = read_pairs(write(IN_USE[name]), asked=Asked(columns=columns, format=format)).rows
        return [(row.prompt, row.chosen, row.rejected) for row in rows]

    # the line that refuses a judge's data says how they are read
    given = {"prompt": "orig_instruction", "response_a": "orig_response_A", "response_b": "orig_response_B"}
    name = "Preference-Collection (Prometheus)"
    assert read(name, **given, winner="orig_preference") == [(f"{at}?", "x", "y") for at in range(4)]
    # the other of two verdicts, the other of two scores
    assert read("PKU-SafeRLHF", better_response_id="safer_response_id") == [(f"{at}?", "y", "x") for at in range(4)]
    assert read("HelpSteer2", helpfulness="verbosity")[0] == ("0?", "y", "x")
    assert read("HelpSteer2", format="scored-rows") == read("HelpSteer2")
    assert read("webgpt comparisons", format="verdict") == read("webgpt comparisons")
    assert read("OpenHermesPreferences", format="pairs") == read("OpenHermesPreferences")
    # what a line says to do is what helps
    alone = [{"prompt": f"{at}?", "response": "x", "score": at} for at in range(4)]
    asked = Asked(columns={"label": "score"}, label_threshold=2)
    assert [row.label for row in read_labelled(write(Case(alone)), asked=asked).rows] == [False, False, True, True]
    judged = verdicts(["a", "b"], preference=["b", "a"])
    found = read_pairs(write(Case(judged)), asked=Asked(columns={"other": "preference"})).rows
    assert [pair.chosen for pair in found] == ["x", "y"]
    whole = [{"prompt": "1? 2?", "chosen": chat("1?", "z", "2?", "x"), "rejected": chat("1?", "z", "2?", "y")}]
    (pair,) = read_pairs(write(Case(whole)), asked=Asked(columns={"other": "prompt"})).rows
    assert pair.prompt == turns("1?", "z", "2?")
    multipref = [{"text": "Why?", "completion_a": "x", "completion_b": "y", "overall_pref": "B-is-clearly-better"}]
    columns = {"prompt": "text", "winner": "overall_pref"}
    assert read_pairs(write(Case(multipref)), asked=Asked(columns=columns)).rows[0].chosen == "y"
    rank = [{"prompt": "?", "responses": ["x", "y", "z"], "rankings": [3, 1, 2]}]
    (pair,) = read_pairs(write(Case(rank)), asked=Asked(columns={"ranks": "rankings"})).rows
    assert (pair.chosen, pair.rejected) == ("y", "x")


def test_several_chosen_and_rejected_answers_share_the_weight_of_their_row() -> None:
    source = write(Case([{"prompt": "?", "chosen": ["a", "b"], "rejected": ["x", "y"]}]))
    read = read_pairs(source, asked=Asked(pair_up="all", min_margin=3))
    assert [(row.chosen, row.rejected, row.weight) for row in read.rows] == [
        (good, bad, 0.25) for good in "ab" for bad in "xy"
    ]


def test_votes_on_dialogues_that_went_apart_are_left_out_and_no_mistake() -> None:
    """The arena's dialogues go on after answers that differ: no one prompt stands before their last ones."""
    rows = [
        {"prompt": '["1?", "2?"]', "response_a": '["x", "y"]', "response_b": '["z", "y"]', "winner": "model_a"},
        {"prompt": '["1?", "2?"]', "response_a": '["z", "x"]', "response_b": '["z", "y"]', "winner": "model_a"},
    ]
    read = read_pairs(write(Case(rows)))
    assert [(row.prompt, row.chosen) for row in read.rows] == [(turns("1?", "z", "2?"), "x")]
    assert [skip.reason for skip in read.skipped] == ["its two dialogues went apart before their last answers"]


@pytest.mark.parametrize(
    "before",
    [
        "<|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\n",
        "### Human: Sky?\n### Assistant:",
        "[INST] Sky? [/INST]",
        "<start_of_turn>user\nSky?<end_of_turn>\n<start_of_turn>model\n",
        "USER: Sky?\nASSISTANT: Blue.\nUSER: Sure?\nASSISTANT:",
    ],
)
def test_two_texts_in_marks_share_their_prompt_and_no_beginning_of_an_answer(before: str) -> None:
    (pair,) = read_pairs(write(Case([{"chosen": f"{before} It is blue.", "rejected": f"{before} It is green."}]))).rows
    assert (pair.prompt, pair.chosen, pair.rejected) == (before, " It is blue.", " It is green.")


def test_a_prompt_that_is_null_beside_whole_dialogues_is_none() -> None:
    row = {"prompt": None, "chosen": chat("Sky?", "x"), "rejected": chat("Sky?", "y")}
    assert read_pairs(write(Case([row], name=PARQUET))).rows[0].prompt == turns("Sky?")
