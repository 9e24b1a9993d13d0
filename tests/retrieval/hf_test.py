# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: what we write is read, here and there, and damage is told."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rfrec.config import UserError
from rfrec.retrieval import hf, hf_vocab, t5, vocab, vocab_files

WORDS = vocab.build(
    {"text": (5, 7), "image": (6, 4)}, prompts={"seqrec": 0, "item2image": 4}
)
KINDS = {
    "relu, tied": {},
    "gated, free": {"feed_forward": "gated-gelu", "tied": False},
}


def _model(size=WORDS.size, **changes):
    arch = t5.Architecture(
        vocab_size=size,
        d_model=16,
        d_ff=24,
        d_kv=4,
        num_heads=2,
        num_layers=2,
        num_decoder_layers=1,
        dropout=0.2,
        **changes,
    )
    rng = np.random.default_rng(size)
    shapes = jax.eval_shape(lambda: t5.init(arch, jax.random.key(0)))
    return hf.Weights(
        arch,
        jax.tree.map(lambda a: rng.normal(size=a.shape).astype("f4") / 2, shapes),
    )


def _equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder of each kind, written once."""
    root = tmp_path_factory.mktemp("hf")
    for name, changes in KINDS.items():
        hf.write(root / name, _model(**changes), WORDS)
    return root


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of a tied model's folder, to be damaged."""
    return shutil.copytree(folders / "relu, tied", tmp_path / "model")


def _change(folder, tensors=None, **config):
    """Changes tensors (None removes one) and keys of the config."""
    stored = load_file(folder / "model.safetensors") | (tensors or {})
    stored = {name: a for name, a in stored.items() if a is not None}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def _logits(weights):
    tokens = jnp.array([[3, 9, 1, 0], [12, 5, 7, 1]])
    labels = t5.shift_right(jnp.array([[4, 8, 1], [2, 9, 1]]))
    arch, params = weights
    return np.asarray(t5.T5(arch).apply({"params": params}, tokens, labels))


# Written and read again.


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_the_model_and_its_vocabulary(folders, kind):
    weights, written = hf.read(folders / kind), _model(**KINDS[kind])
    assert weights.arch == written.arch
    assert _equal(weights.params, written.params)
    assert hf_vocab.read(folders / kind) == WORDS
    tensors = load_file(folders / kind / "model.safetensors")
    assert ("lm_head.weight" in tensors) == (not weights.arch.tied)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_computes_the_same_logits_and_saves_what_we_read(
    folders, kind, tmp_path
):
    torch = pytest.importorskip("torch", reason="the models of transformers need it")
    import transformers

    theirs = transformers.T5ForConditionalGeneration.from_pretrained(folders / kind)
    tokens = torch.tensor([[3, 9, 1, 0], [12, 5, 7, 1]])
    with torch.no_grad():
        logits = theirs.eval()(
            input_ids=tokens,
            attention_mask=(tokens > 0).long(),
            labels=torch.tensor([[4, 8, 1], [2, 9, 1]]),
        ).logits.numpy()
    ours = _logits(hf.read(folders / kind))
    assert np.abs(ours - logits).max() / np.abs(logits).max() < 1e-5
    theirs.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folders / kind).save_pretrained(tmp_path)
    again, written = hf.read(tmp_path), _model(**KINDS[kind])
    assert again.arch == written.arch
    assert _equal(again.params, written.params)
    assert not (tmp_path / hf_vocab.FILE).exists()
    assert hf_vocab.read(tmp_path) == WORDS


@pytest.mark.parametrize("loader", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_loads_the_tokenizer(folders, loader):
    import transformers

    made = getattr(transformers, loader).from_pretrained(folders / "relu, tied")
    tokens = [int(WORDS.code_tokens("text")[0][4]), int(WORDS.prompt("item2image")[1])]
    assert made("<a_4><item2image_1>").input_ids == [*tokens, vocab.END]


def test_nothing_is_overwritten_and_nothing_half_written_stays(folders, tmp_path):
    before = (folders / "relu, tied" / "config.json").read_bytes()
    with pytest.raises(UserError, match="is not empty; use a new folder"):
        hf.write(folders / "relu, tied", _model(), WORDS)
    assert (folders / "relu, tied" / "config.json").read_bytes() == before
    with pytest.raises(UserError, match=r"the vocabulary has 28 tokens, the model 27"):
        hf.write(tmp_path / "new", _model(27), WORDS)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        hf.write(tmp_path / "file" / "new", _model(), WORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_head_for_each_level_cannot_be_exported(tmp_path):
    with pytest.raises(UserError, match="a head for each level .TIGER's. has no Hugg"):
        hf.write(tmp_path / "new", _model(level_heads=(5, 7)), WORDS)
    assert not list(tmp_path.iterdir())


# What others write.


def test_shards_and_half_precision_are_read(folder):
    tensors = load_file(folder / "model.safetensors")
    names, where = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"model-{number}.safetensors"
        save_file(
            {n: np.asarray(jnp.asarray(tensors[n], jnp.bfloat16)) for n in part},
            folder / shard,
        )
        where |= dict.fromkeys(part, shard)
    (folder / "model.safetensors").unlink()
    index = json.dumps({"metadata": {}, "weight_map": where})
    (folder / "model.safetensors.index.json").write_text(index)
    for ours, exact in zip(
        jax.tree.leaves(hf.read(folder).params),
        jax.tree.leaves(_model().params),
        strict=True,
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, rtol=2**-7)


def test_copies_of_the_embedding_and_remains_of_early_versions_are_accepted(folder):
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    copies = ("encoder.embed_tokens.weight", "lm_head.weight")
    _change(
        folder,
        dict.fromkeys(copies, shared)
        | {"shared.weight": None, unused: np.zeros((32, 2), np.float32)},
    )
    assert hf.read(folder).arch == _model().arch
    assert _equal(hf.read(folder).params, _model().params)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("head", ["shared", "own"])
def test_any_output_gives_the_logits_it_gave_there(folder, scaled, head):
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    matrix = shared if head == "shared" else np.roll(shared, 1, axis=0)
    _change(folder, {"lm_head.weight": matrix}, scale_decoder_outputs=scaled)
    weights = hf.read(folder)
    assert weights.arch.tied == (scaled and head == "shared")
    wanted = _logits(_model()) if head == "shared" else None
    if wanted is None:
        moved = _model()
        embedding = moved.params["embedding"]
        arch = weights.arch
        output = np.roll(embedding, 1, axis=0) * np.float32(16**-0.5)
        wanted = _logits(hf.Weights(arch, moved.params | {"output": output}))
    np.testing.assert_allclose(
        _logits(weights), wanted * (1.0 if scaled else 4.0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "model_type is 'bart': not a T5"),
        ({"pad_token_id": 3}, "pad_token_id is 3: only 0 is supported"),
        ({"eos_token_id": 2}, "eos_token_id is 2"),
        ({"feed_forward_proj": "gated-silu"}, "'gated-silu': use relu or gated-gelu"),
        ({"d_model": None}, "d_model is None: must be a whole number"),
        ({"num_heads": "2"}, "num_heads is '2'"),
        ({"num_layers": True}, "num_layers is True"),
        ({"dropout_rate": 1.0}, r"dropout_rate is 1.0: must be a number in"),
        ({"vocab_size": 29}, r"shared.weight has shape \(28, 16\), not \(29, 16\)"),
        ({"num_layers": 3}, r"encoder.block.2.layer.0.* is missing"),
        ({"num_layers": 1}, r"encoder.block.1.layer.0.* is none of this T5"),
        ({"feed_forward_proj": "gated-gelu"}, "tensor .*wi.weight is none of this T5"),
    ],
)
def test_a_config_that_is_not_understood_is_one_line(folder, change, message):
    _change(folder, **change)
    with pytest.raises(UserError, match=message) as error:
        hf.read(folder)
    assert str(error.value).startswith(f"{folder}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("decoder.final_layer_norm.weight", None, "final_layer_norm.weight is missing"),
        ("shared.weight", None, "tensor shared.weight is missing"),
        ("pooler.weight", np.ones(3, np.float32), "pooler.weight is none of this T5"),
        (
            "encoder.final_layer_norm.weight",
            np.ones(16, np.int32),
            "of type int32 holds no weights",
        ),
        (
            "encoder.embed_tokens.weight",
            np.ones((28, 16), np.float32),
            "encoder.embed_tokens.weight differs from shared.weight",
        ),
    ],
)
def test_a_tensor_that_is_not_understood_is_named(folder, name, array, message):
    _change(folder, {name: array})
    with pytest.raises(UserError, match=message):
        hf.read(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json: cannot be read"),
        ("config.json", b"{", "config.json: is not valid JSON"),
        ("config.json", b"[]", "config.json: is not a JSON object"),
        ("model.safetensors", None, "does not exist; save the model with save_pretr"),
        ("model.safetensors.index.json", b'{"weight_map": 3}', "lists no shards"),
        ("model.safetensors", b"PK" * 99, "model.safetensors is damaged"),
    ],
)
def test_a_damaged_file_is_named(folder, file, content, message):
    (folder / file.replace(".index.json", "")).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        hf.read(folder)
    assert "\n" not in str(error.value)


# Vocabularies of others.


def _published(folder, strings):
    """Writes the added tokens as transformers 4 does beside sentencepiece."""
    added = {str(token): {"content": string} for string, token in strings.items()}
    config = json.dumps({"added_tokens_decoder": added})
    (folder / "tokenizer_config.json").write_text(config)


def _mql4grec_strings(letters):
    names = sorted(f"<{letter}_{i}>" for letter in letters for i in range(12))
    return {name: vocab.T5_PIECES + i for i, name in enumerate(names)}


def test_the_order_of_mql4grec_is_found_from_the_added_tokens(tmp_path):
    _published(tmp_path, _mql4grec_strings("abAB"))
    found = hf_vocab.read(tmp_path)
    sizes = {"text": (12, 12), "image": (12, 12)}
    assert found == vocab.build(sizes, layout="t5")


def test_codes_that_came_in_two_goes_are_found(tmp_path):
    first = _mql4grec_strings("ab")
    second = {n: i + len(first) for n, i in _mql4grec_strings("AB").items()}
    _published(tmp_path, first | second)
    start = vocab.build({"text": (12, 12)}, layout="t5")
    assert hf_vocab.read(tmp_path) == vocab.grow(start, {"image": (12, 12)})


def test_a_t5_without_codes_has_the_pieces_alone(tmp_path):
    _published(tmp_path, {"<pad>": 0, "</s>": 1, "<extra_id_0>": 32_099})
    assert hf_vocab.read(tmp_path) == vocab.build({}, layout="t5")


def test_our_own_t5_layout_is_found_from_its_tokenizer(tmp_path):
    words = vocab.build({"text": (9, 12), "image": (11,)}, layout="t5")
    hf_vocab.write(tmp_path, words)
    (tmp_path / hf_vocab.FILE).unlink()
    assert hf_vocab.read(tmp_path) == words


def test_another_order_of_tokens_is_one_line(tmp_path):
    strings = _mql4grec_strings("ab")
    strings["<a_3>"], strings["<b_3>"] = strings["<b_3>"], strings["<a_3>"]
    _published(tmp_path, strings)
    with pytest.raises(UserError, match="<a_3> is token .* is different"):
        hf_vocab.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no tokenizer"), ("{", "is damaged"), ('{"model": 3}', "is damaged")],
)
def test_a_missing_or_damaged_tokenizer_is_told(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=message):
        hf_vocab.read(tmp_path)


# Rows of tokens.


@pytest.mark.parametrize("tied", [True, False])
def test_rows_move_with_their_tokens_and_back(tied):
    sizes = {"text": (5, 11), "image": (3,)}
    prompts = {"seqrec": 0, "item2image": 2}
    large = vocab.build(sizes, prompts=prompts, layout="t5")
    small = vocab.build(sizes, prompts=prompts)
    published, fresh = _model(large.size, tied=tied), _model(small.size, tied=tied)
    moved = hf_vocab.move_rows(published.params, large, small, fresh.params)
    for name in ("embedding", *(() if tied else ("output",))):
        rows, old = moved[name], published.params[name]
        assert rows.shape == (small.size, 16)
        for modality in sizes:
            pairs = zip(
                small.code_tokens(modality), large.code_tokens(modality), strict=True
            )
            for here, there in pairs:
                np.testing.assert_array_equal(rows[here], old[there])
        np.testing.assert_array_equal(rows[small.prompt("item2image")], old[200:202])
        np.testing.assert_array_equal(rows[:2], old[:2])
    assert moved["encoder"] is published.params["encoder"]
    trained = jax.tree.map(lambda a: a + 1, moved)
    back = hf_vocab.move_rows(trained, small, large, published.params)["embedding"]
    changed = np.flatnonzero((back != published.params["embedding"]).any(axis=1))
    codes = [token for m in sizes for t in large.code_tokens(m) for token in t]
    assert changed.tolist() == sorted([0, 1, 200, 201, *codes])


def test_a_block_that_would_be_lost_is_named():
    small = vocab.build({"text": (5,)})
    with pytest.raises(UserError, match="'code text level 1' has 7 tokens, .* 0"):
        hf_vocab.move_rows(_model().params, WORDS, small, _model(small.size).params)


def test_tokenizer_files_are_copied_only_if_the_codes_are_theirs(tmp_path):
    _published(tmp_path, _mql4grec_strings("ab"))
    (tmp_path / "spiece.model").write_bytes(b"pieces")
    out = tmp_path / "out"
    out.mkdir()
    words = vocab.build({"text": (12, 12)}, layout="t5")
    hf_vocab.write(out, words, copied_from=tmp_path)
    assert (out / "spiece.model").read_bytes() == b"pieces"
    assert vocab_files.read(out / hf_vocab.FILE) == words
    words = vocab.build({"text": (12, 11)}, layout="t5")
    with pytest.raises(UserError, match=r"<b_\d+> is token"):
        hf_vocab.write(out, words, copied_from=tmp_path)
