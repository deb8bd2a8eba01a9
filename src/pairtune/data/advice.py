"""What each finding on data does to training, and what to do about it."""

from typing import NamedTuple


class Advice(NamedTuple):
    """In a few words each."""

    effect: str
    todo: str


#: By the name of the finding. `pairtune check --fix` leaves out the rows of those that say so.
ADVICE = {
    "skipped": Advice("these rows are not trained on", "mend them, or remove them"),
    "unread": Advice("what stands there is not trained on", "if it belongs to a row, say so with --columns"),
    "rated_lower": Advice("the answer that was rated worse is learned", "turn them round, or remove them"),
    "identical": Advice("nothing is learned from them", "--fix leaves them out"),
    "duplicate": Advice("they count twice", "--fix leaves the later ones out; a column weight says it openly"),
    "contradictory": Advice("they pull both ways and cancel", "find out which is right; --fix leaves all of them out"),
    "prompt_repeated": Advice("the model learns to say the question again", "cut the prompt from the responses"),
    "template_token": Advice("marks of a dialogue are trained as an answer", "give the turns as messages"),
    "turns": Advice("some chat templates refuse or drop such turns", "join turns of one speaker"),
    "answered": Advice("the prompt shows the answer before it is given", "cut the answer from the prompt"),
    "list": Advice("the list is trained as one answer, brackets and all", "write lists, in JSON lines or Parquet"),
    "duplicate_labelled": Advice("they count twice", "--fix leaves the later ones out"),
    "contradictory_labels": Advice("they pull both ways", "find out which is right; --fix leaves all of them out"),
    "control": Advice("tokens that nobody sees are trained", "clean the text; --fix leaves such rows out"),
    "refusal": Advice("the model learns to decline", "read some; for a helpful model, remove them"),
    "script": Advice("the model learns to answer in that script", "read some; remove what does not belong"),
    "near_prompt": Advice("a held-out prompt may be nearly one that is trained on", "keep one of each"),
    "shared_with": Advice("what is measured on that file was trained on", "remove these rows before training"),
    "tokenised": Advice("the model does not see these rows as they stand", "raise --max-tokens, or shorten them"),
}

#: What is told of data that nothing is wrong with, and what it means.
FACTS = {
    "shape": "what the rows were taken for",
    "longer_wins": "how far the length of an answer alone tells which was preferred",
    "shared_prompt": "pairs of one prompt stay on one side of the split",
    "balance": "desirable and undesirable responses",
    "like_prompt": "how far the prompt's own words tell which was preferred",
    "bag_of_words": "how far words alone tell: the more, the less there is to learn from what is said",
    "lengths": "of the responses, with a histogram over powers",
    "tokens": "of the rows, as the model reads them",
    "step": "what a training step sees",
    "weights": "how often rows count",
}
