# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens of codes against a dictionary of strings numbered one by one."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import transformers

from rfrec.config import UserError
from rfrec.retrieval import tasks, vocab, vocab_files

MQL4GREC = {"text": (256,) * 4, "image": (256,) * 4}
ALL_TASKS = tuple(tasks.TASKS)


def spell(modality, level, code):
    letter = "abcdefghijklmnopqrstuvwxyz"[level]
    return f"<{letter.upper() if modality == 'image' else letter}_{code}>"


def test_compact_tokens_follow_one_another():
    vocabulary = vocab.build(
        {"text": (3, 5), "image": (2,)},
        prompts={"seqrec": 0, "item2image": 4},
        separator=True,
        user_buckets=7,
    )
    names = ["<pad>", "</s>"]
    names += [spell("text", 0, c) for c in range(3)]
    names += [spell("text", 1, c) for c in range(5)]
    names += [spell("image", 0, c) for c in range(2)]
    names += [f"<item2image_{i}>" for i in range(4)]
    names += ["<separator_0>", *(f"<user_{i}>" for i in range(7))]
    assert vocab.token_strings(vocabulary) == names
    assert vocabulary.size == len(names)
    assert vocabulary.level_range("text") == ((2, 3), (5, 5))
    assert vocabulary.level_range("image") == ((10, 2),)
    assert vocabulary.prompt("item2image").tolist() == [12, 13, 14, 15]
    assert vocabulary.prompt("seqrec").size == 0
    assert vocabulary.separator == 16
    assert vocabulary.modalities == ("text", "image")
    assert vocabulary.sizes("text") == (3, 5)


def test_t5_layout_has_the_published_tokens():
    vocabulary = vocab.build(MQL4GREC, layout="t5")
    found = vocab.item_tokens(vocabulary, "text", np.asarray([[1, 2, 3, 4]]))
    assert found.tolist() == [[33235, 33558, 33825, 34092]]
    assert vocabulary.size == 34_148


@hypothesis.given(
    text=st.lists(st.integers(1, 130), min_size=1, max_size=4),
    image=st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
def test_t5_layout_numbers_codes_in_the_order_of_their_strings(text, image):
    vocabulary = vocab.build({"text": text, "image": image}, layout="t5")
    names = sorted(
        spell(modality, level, code)
        for modality, sizes in (("text", text), ("image", image))
        for level, size in enumerate(sizes)
        for code in range(size)
    )
    assert vocab.token_strings(vocabulary)[vocab.T5_PIECES :] == names
    for level, tokens in enumerate(vocabulary.code_tokens("text")):
        assert tokens.dtype == np.int32
        assert [names[t - vocab.T5_PIECES] for t in tokens] == [
            spell("text", level, code) for code in range(text[level])
        ]


def test_prompts_of_the_t5_layout_are_pieces_by_the_place_of_the_task():
    prompts = tasks.prompt_sizes(("seqrec", "item2image", "fgfusionseqrec"))
    vocabulary = vocab.build(MQL4GREC, prompts=prompts, layout="t5")
    assert vocabulary.prompt("item2image").tolist() == [200, 201, 202, 203]
    assert vocabulary.prompt("fgfusionseqrec").tolist() == list(range(300, 316))
    assert vocabulary.size == 34_148


@pytest.mark.parametrize("layout", vocab.LAYOUTS)
def test_growth_keeps_every_token(layout):
    start = vocab.build({"text": (8, 9)}, prompts={"seqrec": 0}, layout=layout)
    grown = vocab.grow(
        start,
        {"text": (8, 9), "image": (12, 3)},
        prompts=tasks.prompt_sizes(("item2image", "seqrec", "image2item")),
    )
    again = vocab.grow(
        grown,
        {"image": (12, 3)},
        prompts=tasks.prompt_sizes(ALL_TASKS),
        separator=True,
        user_buckets=5,
    )
    for old, new in ((start, grown), (grown, again)):
        assert new.blocks[: len(old.blocks)] == old.blocks
        before, after = vocab.token_strings(old), vocab.token_strings(new)
        assert len(after) == new.size > old.size
        assert all(
            a == b or b.startswith("<piece_")
            for a, b in zip(after, before, strict=False)
        )
        assert len(set(after)) == len(after)
    assert vocab.grow(again, {}) == again


def test_prompts_never_share_pieces():
    first = vocab.build({"text": (2,)}, prompts={"item2image": 4}, layout="t5")
    second = vocab.grow(first, {}, prompts={"image2item": 4, "seqitem2image": 4})
    pieces = [
        second.prompt(t)[0] for t in ("item2image", "image2item", "seqitem2image")
    ]
    assert pieces[0] == 100 and len(set(pieces)) == 3


@pytest.mark.parametrize("layout", vocab.LAYOUTS)
def test_the_token_of_a_code_has_its_string(layout):
    vocabulary = vocab.build({"text": (11, 120), "image": (5, 5)}, layout=layout)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, (11, 120), (40, 2))
    codes[7] = -1
    tokens = vocab.item_tokens(vocabulary, "text", codes)
    assert tokens.dtype == np.int32 and (tokens[7] == vocab.PAD).all()
    names = vocab.token_strings(vocabulary)
    for row in (0, 20, 39):
        assert [names[t] for t in tokens[row]] == [
            spell("text", level, code) for level, code in enumerate(codes[row])
        ]
    assert len(np.unique(tokens, axis=0)) == len(np.unique(codes, axis=0))


def test_users_are_hashed_alike_everywhere_and_spread():
    vocabulary = vocab.build({"text": (4,)}, user_buckets=10)
    names = [f"user {i}" for i in range(1000)]
    tokens = vocabulary.user_tokens(names)
    assert np.array_equal(tokens, vocabulary.user_tokens(names))
    # CRC-32 of "123456789" is the check value 0xCBF43926 = 3421780262.
    assert vocabulary.user_tokens(["123456789"]).tolist() == [6 + 2]
    counts = np.bincount(tokens - 6, minlength=10)
    assert len(counts) == 10 and counts.min() > 60


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: vocab.build({"text": (4,)}, layout="wide"),
            "layout 'wide' does not exist; use one of",
        ),
        (lambda: vocab.build({"audio": (4,)}), "modality 'audio' is neither"),
        (lambda: vocab.build({"text": (4, 0)}), r"sizes \(4, 0\): need 1 or more"),
        (lambda: vocab.build({"text": ()}), "need 1 or more"),
        (
            lambda: vocab.build({"text": (4,)}, prompts={"x": 101}, layout="t5"),
            "prompt of x: 101 tokens, the T5 layout allows 100",
        ),
        (
            lambda: vocab.grow(vocab.build({"text": (4, 4)}), {"text": (4, 5)}),
            "block 'code text level 1' has 4 tokens, 5 are wanted",
        ),
        (
            lambda: vocab.item_tokens(
                vocab.build({"text": (4, 4)}), "text", np.asarray([[0, 1], [0, 4]])
            ),
            r"row 1, level 1 is 4, out of range 0 to 3",
        ),
        (
            lambda: vocab.item_tokens(
                vocab.build({"text": (4, 4)}), "text", np.asarray([[0, -1]])
            ),
            "row 0, level 1 is -1",
        ),
        (
            lambda: vocab.item_tokens(
                vocab.build({"text": (4,)}), "image", np.asarray([[0]])
            ),
            "has no image codes; it has text",
        ),
        (
            lambda: vocab.build({"text": (4,)}).user_tokens(["a"]),
            "no user tokens; set user_buckets",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_codes_of_the_t5_layout_have_no_range():
    with pytest.raises(ValueError, match="only the compact layout"):
        vocab.build({"text": (4,)}, layout="t5").level_range("text")


@pytest.mark.parametrize("layout", vocab.LAYOUTS)
def test_files_give_the_vocabulary_back(tmp_path, layout):
    vocabulary = vocab.build(
        {"text": (5, 6), "image": (30,)},
        prompts=tasks.prompt_sizes(ALL_TASKS),
        separator=True,
        user_buckets=4,
        layout=layout,
    )
    vocab_files.write(vocabulary, tmp_path / "vocab.json")
    assert vocab_files.read(tmp_path / "vocab.json") == vocabulary
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:40], "is not valid JSON"),
        (lambda text: "[]", "is not a vocabulary"),
        (lambda text: "{}", "is not a vocabulary"),
        (lambda text: text.replace("compact", "wide"), "unknown layout or block"),
        (lambda text: text.replace('"code"', '"coda"'), "unknown layout or block"),
        (lambda text: text.replace('"size": 6', '"size": 6.0'), "is not a vocabulary"),
        (lambda text: text.replace('"size": 6', '"size": 7'), "overlap or leave gaps"),
        (lambda text: text.replace('"size": 6', '"size": 5'), "overlap or leave gaps"),
        (
            lambda text: text.replace('"level": 1', '"level": 0'),
            "overlap or leave gaps",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, damage, message):
    path = tmp_path / "vocab.json"
    vocab_files.write(vocab.build({"text": (5, 6), "image": (3,)}), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message) as error:
        vocab_files.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_unwritable_files_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        vocab_files.read(tmp_path / "vocab.json")
    with pytest.raises(UserError, match="cannot be written"):
        vocab_files.write(vocab.Vocabulary(), tmp_path / "no" / "vocab.json")


@pytest.mark.parametrize("layout", vocab.LAYOUTS)
def test_transformers_loads_the_tokenizer_we_save(tmp_path, layout):
    vocabulary = vocab.build(
        {"text": (5, 12), "image": (30,)},
        prompts=tasks.prompt_sizes(("seqrec", "item2image")),
        layout=layout,
    )
    vocab_files.tokenizer(vocabulary).save_pretrained(tmp_path)
    loaded = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(loaded) == vocabulary.size
    codes = np.asarray([[0, 11], [4, 2]])
    tokens = vocab.item_tokens(vocabulary, "text", codes)
    text = "<a_0><b_11><a_4><b_2>"
    assert loaded(text)["input_ids"] == [*tokens.ravel().tolist(), vocab.END]
    assert loaded.decode(tokens.ravel().tolist()) == text
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    padded = loaded([text, "<A_7>"], padding=True)["input_ids"]
    assert padded[1] == [int(vocabulary.code_tokens("image")[0][7]), 1, 0, 0, 0]
    assert loaded.convert_ids_to_tokens(list(range(vocabulary.size))) == (
        vocab.token_strings(vocabulary)
    )
    with pytest.raises(Exception, match="UNK"):
        loaded("<a_0><b_12>")
