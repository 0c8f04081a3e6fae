#!/usr/bin/env python3
"""Small byte-level BPE tokenizers, and what HuggingFace `tokenizers` makes of text with them.

  make_tokenizers.py samples OUT             train every tokenizer below on a corpus drawn from a
                                             seed; write OUT/NAME/tokenizer.json and cases.json
  make_tokenizers.py cases TOKENIZER N SEED  print cases of N random texts as JSON lines

A case is {"text", "ids"}: the ids without the post-processor's tokens; "with_template" if these
make a difference, "decoded" if the ids do not decode to the text, "skipped" if leaving special
tokens out makes another text. Needs `pip install tokenizers`; OUT/provenance.json records its
version.

The structures are those of the published tokenizer.json files (the vocabularies are not):
  deepseek  DeepSeek-V3, V3.1, V3.2: three Splits, ByteLevel without its expression
  glm       GLM-4.5 to GLM-5, and Llama-3: one Split, ignore_merges, a template with two tokens
  qwen      Qwen2: NFC, one Split, one digit a word
  gpt2      GPT-2: ByteLevel with its own expression and a space before the text
  odd       what none of these uses: every Split behaviour, Digits, added tokens of every kind
  unknown   few known bytes: an unk_token, byte_fallback, fused
"""
import argparse
import json
import os
import platform
import random
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers import processors, trainers

DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
            r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
SENTENCE = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]


def category_pool():
    """Code points by general category, surrogates and private use of the basic plane left out."""
    pool = {}
    for point in [*range(0xD800), *range(0xF900, 0x110000)]:
        pool.setdefault(unicodedata.category(chr(point)), []).append(chr(point))
    return {name: rng for name, rng in sorted(pool.items())}


POOL = category_pool()
EXTREMES = ["\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ufffd", "\uffff", "\U00010000", "\U0010ffff",
            "\u180e", "\u200b", "\ufeff", "\x85", "\xa0", "\u2028", "\u3000", "\x0b", "\x1c", "\u017f"]
PHRASES = ["The quick brown fox", "don't", "I'LL", "we've", "It's", "you'RE", "'d", "'ſ", "naïve", "e\u0301te\u0301",
           "Å\u0323ngström", "深度求索", "注意力机制", "ひらがなカタカナ", "한국어 문장", "مرحبا بالعالم", "שלום עולם", "हिन्दी",
           "ไทย", "Ελληνικά", "русский текст", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "1234567", "3.14159", "１２３", "٣٤٥", "Ⅷ", "½",
           "int main() {\n  return 0;\n}", "x += 1;\r\n", "https://a.b/c?d=e&f#g", "a_b-c", "$100%", "(a)[b]", "<tag>",
           "!!!", "...\n\n", "\t\t", "    ", " \n", "\n \n", "\r", "a\u200db", "ﬁ", "K", "ǅ", "_under_", "\\n", "「引用」"]


def word(rng):
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(PHRASES)
    if kind < 0.6:
        return "".join(rng.choice("etaoin shrdlu") for _ in range(rng.randrange(1, 9)))
    if kind < 0.67:
        return rng.choice([" ", "\n", "\r\n", "\t", "\u3000", "\xa0"]) * rng.randrange(1, 6)
    if kind < 0.72:
        return rng.choice(EXTREMES)
    if kind < 0.8:
        return str(rng.randrange(10 ** rng.randrange(1, 12)))
    return "".join(rng.choice(POOL[rng.choice(list(POOL))]) for _ in range(rng.randrange(1, 6)))


def line(rng, added):
    words = [rng.choice(added) if added and rng.random() < 0.08 else word(rng) for _ in range(rng.randrange(1, 12))]
    return "".join(w + rng.choice(["", " ", "  ", "\n"]) for w in words)


def every_category():
    """One text a category: its first, its last and evenly spread code points, alone and after a letter."""
    for name, points in POOL.items():
        spread = [points[i * (len(points) - 1) // 11] for i in range(12)]
        yield "".join(spread) + " " + " ".join("a" + p for p in spread) + " 1" + "1".join(spread)


def split(pattern, behavior="isolated", invert=False):
    return pre.Split(pattern if isinstance(pattern, str) else Regex(pattern[0]), behavior, invert)


def train(steps, size, corpus, normalizer=None, special=()):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                  initial_alphabet=pre.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def deepseek(corpus):
    steps = [split([p]) for p in DEEPSEEK] + [pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    t = train(steps, 640, corpus, normalizers.Sequence([]), SENTENCE)
    t.add_tokens([AddedToken(w, normalized=False) for w in ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def glm(corpus):
    steps = [split([LLAMA % r"\p{N}{1,3}"]), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    t = train(steps, 600, corpus)
    t.model.ignore_merges = True
    t.add_special_tokens(["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"])
    t.add_tokens([AddedToken(w, normalized=False) for w in ["<think>", "</think>"]])
    ids = [(w, t.token_to_id(w)) for w in ["[gMASK]", "<sop>"]]
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="[gMASK] <sop> $A", pair="[gMASK] <sop> $A $B", special_tokens=ids)])
    return t


def qwen(corpus):
    steps = [split([LLAMA % r"\p{N}"]), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    t = train(steps, 560, corpus, normalizers.NFC())
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return t


def gpt2(corpus):
    t = train([pre.ByteLevel(add_prefix_space=True, use_regex=True)], 480, corpus)
    t.add_special_tokens(["<|endoftext|>"])
    return t


def odd(corpus):
    steps = [split("fox", "removed"), split(["[,;]"], "merged_with_previous"), split(["\\("], "merged_with_next"),
             split([r"\p{Lu}"], "contiguous"), split([r"[a-m]+|x?"], "isolated", invert=True), pre.Digits(True),
             split(["-"], "merged_with_previous", invert=True),
             pre.Digits(False), pre.ByteLevel(add_prefix_space=True, use_regex=True)]
    t = train(steps, 420, corpus, normalizers.Sequence([normalizers.NFC()]))
    t.add_tokens([AddedToken("left", lstrip=True), AddedToken("right", rstrip=True), AddedToken("word", single_word=True),
                  AddedToken("both sides", lstrip=True, rstrip=True, single_word=True), AddedToken("bo"),
                  AddedToken("Å\u0323", normalized=True), AddedToken("A\u030a\u0323", normalized=False), AddedToken("é")])
    t.add_special_tokens([AddedToken("<s>", lstrip=True), AddedToken("</s>", rstrip=True, normalized=True), "<s><s>"])
    ids = [(w, t.token_to_id(w)) for w in ["<s>", "</s>"]]
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="$A $B", special_tokens=ids)
    return t


def unknown(corpus, fuse=True):
    """The bytes of ASCII text only; < > 0 x A-F spell the fallback tokens of the bytes C3 and C4."""
    known = sorted({c for b in range(0x20, 0x7B) for c in pre.ByteLevel(False, use_regex=False).pre_tokenize_str(chr(b))[0][0]})
    spelt = ["<unk>"] + known + ["<0xC3>", "<0x83>", "<0xA9>", "<0xC2>", "he", "th", "the"]
    merges = [("h", "e"), ("t", "h"), ("t", "he"), ("<unk>", "<unk>")]
    vocab = {w: i for i, w in enumerate(spelt + ["<unk><unk>"])}
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=fuse, byte_fallback=True))
    t.pre_tokenizer = pre.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    return t


ALL = dict(deepseek=deepseek, glm=glm, qwen=qwen, gpt2=gpt2, odd=odd, unknown=unknown)


def case(tokenizer, text):
    plain, ids = (tokenizer.encode(text, add_special_tokens=t).ids for t in (False, True))
    decoded, skipped = (tokenizer.decode(plain, skip_special_tokens=s) for s in (False, True))
    facts = dict(text=text, ids=plain)
    if ids != plain:
        facts["with_template"] = ids
    if decoded != text:
        facts["decoded"] = decoded
    if skipped != decoded:
        facts["skipped"] = skipped
    return facts


def keep(tokenizer, text):
    """Not where HuggingFace's NFC, of an older Unicode, does not know a combining mark."""
    return not tokenizer.normalizer or normalizers.NFC().normalize_str(text) == unicodedata.normalize("NFC", text)


def texts(tokenizer, count, rng):
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    return [line(rng, added) for _ in range(count)]


def write(path, value, **layout):
    with open(path + ".partial", "w", encoding="utf-8") as f:
        json.dump(value, f, **layout)
        f.write("\n")
    os.replace(path + ".partial", path)


def samples(out):
    rng = random.Random(20)
    corpus = [line(rng, ()) for _ in range(3000)] + list(every_category())
    for name, make in ALL.items():
        tokenizer = make(corpus)
        os.makedirs(os.path.join(out, name), exist_ok=True)
        tokenizer.save(os.path.join(out, name, "tokenizer.json"), pretty=False)
        chosen = ["", " ", *every_category(), *PHRASES, *EXTREMES, *texts(tokenizer, 60, random.Random(name))]
        write(os.path.join(out, name, "cases.json"), [case(tokenizer, t) for t in chosen if keep(tokenizer, t)], separators=(",", ":"))
    facts = dict(command="make_tokenizers.py samples", tokenizers=tokenizers.__version__,
                 python=platform.python_version(), unicode=unicodedata.unidata_version, seed=20)
    write(os.path.join(out, "provenance.json"), facts, indent=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("samples").add_argument("out")
    draw = commands.add_parser("cases")
    draw.add_argument("tokenizer")
    draw.add_argument("count", type=int)
    draw.add_argument("seed", type=int)
    args = parser.parse_args()
    if args.command == "samples":
        return samples(args.out)
    tokenizer = Tokenizer.from_file(args.tokenizer)
    for text in texts(tokenizer, args.count, random.Random(args.seed)):
        if keep(tokenizer, text):
            sys.stdout.write(json.dumps(case(tokenizer, text)) + "\n")


if __name__ == "__main__":
    main()
