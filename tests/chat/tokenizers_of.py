"""Tokenizers of each make that chat models have, trained on the spot, with a format's special tokens and template."""

import functools
import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.chat.formats import Format

MAKES = ("bytes", "never", "first", "always", "prepend")
"""Byte-level BPE; SentencePiece without a dummy space, with one before a text, with one before each piece between
special tokens (`legacy`), and the same by a normalizer, as converted tokenizers have it."""

TEXTS = (
    "Which is better, marmalade or quince? Quince, definitely: it is sharper than marmalade.",
    "You are a helpful assistant. Be brief and answer as a sailor would.",
    "Who wrote Emma? Jane Austen wrote Emma, and the answer is \"yes\", or 'no'.",
    "system user assistant tool weather in Paris: sunny and warm; I think that it will rain in Lyon.\n\nWhy?\n",
)


@functools.cache
def _trained(sentencepiece: bool) -> str:
    bare = Tokenizer(models.BPE())
    if sentencepiece:
        bare.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Punctuation()]
        )
        alphabet = [chr(i) for i in range(33, 127)]
    else:
        bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    bare.train_from_iterator(TEXTS * 3, trainer)
    return bare.to_str()


def bare_tokenizer(make: str) -> Tokenizer:
    """A tokenizer of that make without special tokens."""
    if make == "bytes":
        bare = Tokenizer.from_str(_trained(False))
        bare.decoder = decoders.ByteLevel()
        return bare
    model = json.loads(_trained(True))["model"]
    vocabulary = dict(model["vocab"])
    for token in ("<unk>", "▁", *(f"<0x{i:02X}>" for i in range(256))):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in model["merges"]]
    bare = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if make == "prepend":
        bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=make, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    bare.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if make != "never" else [])])
    return bare


def tokenizer_of(make: str, form: Format, *, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer with the format's special tokens and template, which begins a text with BOS if there is one."""
    bare = bare_tokenizer(make)
    names = [name for name in (form.bos, form.eos, *form.marks) if name]
    bare.add_special_tokens(list(dict.fromkeys([*names, "<pad>"])))
    if form.bos and adds_bos:
        bare.post_processor = processors.TemplateProcessing(
            single=f"{form.bos} $A", special_tokens=[(form.bos, bare.token_to_id(form.bos))]
        )
    bos = {"bos_token": form.bos} if form.bos else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=form.eos, pad_token="<pad>", **bos)
    tokenizer.chat_template = form.template
    tokenizer.declared_ends = tuple(tokenizer.convert_tokens_to_ids(list(form.declared)))
    return tokenizer
