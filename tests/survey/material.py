"""What every model of the survey is asked: rows of token ids, pairs and prompts as text, and a tokenizer of bytes."""

import random

from tokenizers import Tokenizer as BareTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.survey.configs import BOS_ID, EOS_ID, PAD_ID
from tests.survey.plain import Row

SPECIAL = {"<s>": BOS_ID, "</s>": EOS_ID, "<pad>": PAD_ID}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {**SPECIAL, **{letter: len(SPECIAL) + i for i, letter in enumerate(alphabet)}}
    bare = BareTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def encoded(pair: dict[str, str]) -> Row:
    """The tokens of a pair: the text's bytes, and the end of text behind each response."""
    encode = tokenizer()
    prompt, chosen, rejected = (tuple(encode(pair[name])["input_ids"]) for name in ("prompt", "chosen", "rejected"))
    return Row(prompt, ((*chosen, EOS_ID), (*rejected, EOS_ID)))


def _row(seed: int, prompt: int, *responses: int) -> Row:
    chance = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(3, 250) for _ in range(length))

    return Row(ids(prompt), tuple(ids(length) for length in responses))


def _pair(seed: int, prompt: int, chosen: int, rejected: int) -> dict[str, str]:
    chance = random.Random(seed)
    lengths = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {name: "".join(chance.choice(LETTERS) for _ in range(length)) for name, length in lengths.items()}


# Of different lengths; the last of each is longer than every window, chunk and original number of positions.
ROWS = [_row(i, *lengths) for i, lengths in enumerate([(5, 6, 3), (2, 1, 11), (34, 21, 26)])]
PAIRS = [_pair(i, *lengths) for i, lengths in enumerate([(4, 6, 9), (7, 5, 5), (3, 12, 2), (9, 7, 4), (30, 20, 8)])]
PROMPTS = [_pair(10 + i, length, 1, 1)["prompt"] for i, length in enumerate((3, 11, 29, 1))]
