"""Texts, tokenizers and windows for language models."""

import builtins
import hashlib
import json
import os
import socket
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbackprop as xb
from xbackprop.data import (
    BytePairTokenizer,
    CharacterTokenizer,
    DataError,
    load_corpus,
    load_text,
    token_windows,
    tokenizer_from_config,
)

SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SAMPLE = "the cat sat on the mat, and the rat sat on the cat. " * 20
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # no halves of surrogate pairs


@pytest.fixture
def write(tmp_path):
    def write(content, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("tokenizers")
    return BytePairTokenizer(SAMPLE, 270)


# ------------------------------------------------------------------------------------------ texts


def test_shakespeare_is_what_was_released():
    text = load_text("shakespeare")
    assert hashlib.sha256(text.encode()).hexdigest() == SHAKESPEARE
    assert (len(text), len(set(text)), "\r" in text) == (1_115_394, 65, False)
    packed = resources.files("xbackprop.data").joinpath("shakespeare.txt.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # no name and no date


def test_shakespeare_attribution_is_in_the_package():
    said = resources.files("xbackprop.data").joinpath("SHAKESPEARE.md").read_text(encoding="utf-8")
    for part in ("karpathy/char-rnn", "MIT", "public domain", SHAKESPEARE, "What was changed"):
        assert part in said


@pytest.mark.parametrize("name", ["text.txt", "text.TXT"])
def test_a_file_is_read_as_it_is(write, name):
    text = "a\r\nb\rc\n\n\u2028 ü€😀\0\ufeff"
    for given_path in (path := write(text, name), str(path)):
        assert load_text(given_path) == text
    assert load_text(write(b"\xef\xbb\xbf" + text.encode(), name)) == text  # a byte order mark


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "text.txt: is empty"),
        (b"\xef\xbb\xbf", "text.txt: is empty"),
        (b"first\nsecond \xff\n", r"text.txt, line 2, byte 8 of the line: 0xff is not UTF-8"),
        (b"cut short \xe2\x82", r"text.txt, line 1, byte 11 of the line: 0xe2 is not UTF-8"),
        ("wide".encode("utf-16"), "text.txt, line 1: this is UTF-16. Save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_refused(write, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load_text(write(content))
    assert "\n" not in str(caught.value)


def test_a_path_that_leads_nowhere_is_refused(write, tmp_path):
    write("x", "plays.txt")
    write("x", "plays.md")
    (tmp_path / "folder.txt").mkdir()
    for name, message in (
        ("play.txt", "no such file. Did you mean .*plays.txt"),
        ("plays.md", "extension '.md'. Expected a .txt file"),
        ("folder.txt", "is a directory. Expected a .txt file"),
    ):
        with pytest.raises(DataError, match=message):
            load_text(tmp_path / name)
    with pytest.raises(DataError, match=r"Unknown text 'shakspere'.*\(shakespeare\).*Did you mean"):
        load_text("shakspere")
    for wrong in (None, 3, b"text.txt"):
        with pytest.raises(TypeError, match="path of a file"):
            load_text(wrong)


def test_a_file_that_cannot_be_read_is_refused(write, monkeypatch):
    path = write("x")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(DataError, match=r"text.txt: cannot be read \(Permission denied\)"):
        load_text(path)


def test_nothing_is_downloaded(monkeypatch):
    pytest.importorskip("tokenizers")

    def refuse(*args, **kwargs):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_corpus("shakespeare", context_length=128)
    load_corpus("shakespeare", tokens="bpe", vocab_size=300, context_length=128)


# ------------------------------------------------------------------------------------- characters


@settings(deadline=None)
@given(text=ANY_TEXT.filter(bool))
def test_characters_come_back(text):
    tokenizer = CharacterTokenizer(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert ids.shape == (len(text),)
    assert tokenizer.decode(ids) == tokenizer.decode(ids.tolist()) == text
    assert tokenizer.vocab_size == len(set(text))
    assert tokenizer.decode(np.arange(tokenizer.vocab_size)) == "".join(sorted(set(text)))
    config = tokenizer.config()
    copy = tokenizer_from_config(json.loads(json.dumps(config)))
    assert copy.config() == config
    np.testing.assert_array_equal(copy.encode(text), ids)


def test_unknown_characters_are_named_with_their_position():
    tokenizer = CharacterTokenizer("bcd")
    for text, character, position in (("bad", "a", 1), ("bz", "z", 1), ("😀", "😀", 0)):
        with pytest.raises(ValueError, match=f"'{character}' at position {position}. .*the 3 char"):
            tokenizer.encode(text)
    assert tokenizer.encode("").shape == (0,)
    with pytest.raises(ValueError, match="got an empty one"):
        CharacterTokenizer("")
    with pytest.raises(TypeError, match="expects a str; got bytes"):
        CharacterTokenizer(b"abc")
    with pytest.raises(ValueError, match=r"half a surrogate pair.*position 1"):
        CharacterTokenizer("a\ud800")


# ------------------------------------------------------------------------------------- byte pairs


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_byte_pairs_bring_every_text_back(pairs, text):
    ids = pairs.encode(text)
    assert ids.dtype == np.int64
    assert ids.shape[0] <= len(text.encode())
    assert pairs.decode(ids) == text


def test_byte_pairs_join_what_is_frequent(pairs):
    assert pairs.vocab_size == 270
    assert len(pairs.encode(SAMPLE)) < 0.5 * len(SAMPLE)
    assert set(pairs.encode("".join(map(chr, range(0x250)))).tolist()) <= set(range(270))
    bytes_only = BytePairTokenizer(SAMPLE, 256)
    assert bytes_only.vocab_size == 256
    assert len(bytes_only.encode("aé€😀")) == 1 + 2 + 3 + 4
    assert BytePairTokenizer("ab", 1000).vocab_size == 257  # nothing is left to join
    assert pairs.decode(pairs.encode("€")[:-1]) == "\ufffd"
    with pytest.raises(ValueError, match=r"half a surrogate pair.*position 2"):
        pairs.encode("ab\udfff")
    with pytest.raises(TypeError, match="expects a str; got list"):
        pairs.encode(["a"])


def test_byte_pairs_of_equal_texts_are_equal(pairs):
    program = (
        "import sys; from xbackprop.data import BytePairTokenizer as B; "
        "sys.stdout.write(B(sys.stdin.read(), 270).config()['json'])"
    )
    for seed in ("0", "1"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "RAYON_NUM_THREADS": str(1 + int(seed)),
        }
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=SAMPLE, capture_output=True, text=True, env=environment, check=True,
        )  # fmt: skip
        assert done.stdout == pairs.config()["json"]


def test_byte_pairs_are_remade_of_their_config(pairs):
    config = json.loads(json.dumps(pairs.config()))
    copy = tokenizer_from_config(config)
    assert isinstance(copy, BytePairTokenizer)
    assert copy.config() == config
    np.testing.assert_array_equal(copy.encode(SAMPLE), pairs.encode(SAMPLE))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BytePairTokenizer("", 300), ValueError, "empty"),
        (lambda: BytePairTokenizer("abc", 255), ValueError, "vocab_size >= 256.*got 255"),
        (lambda: BytePairTokenizer("abc", 300.0), TypeError, "whole number; got 300.0"),
        (lambda: BytePairTokenizer("abc", True), TypeError, "whole number; got True"),
        (lambda: BytePairTokenizer(None), TypeError, "got NoneType"),
    ],
)
def test_byte_pairs_refuse_what_they_cannot_do(pairs, make, error, message):
    with pytest.raises(error, match=message):
        make()


def damage(pairs, change):
    parts = json.loads(pairs.config()["json"])
    change(parts)
    return {"type": "BytePairTokenizer", "json": json.dumps(parts)}


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(normalizer={"type": "Lowercase"}),
        lambda p: p["pre_tokenizer"].update(type="Whitespace"),
        lambda p: p["pre_tokenizer"].update(add_prefix_space=True),
        lambda p: p.update(decoder=None),
        lambda p: p["model"].update(type="Unigram"),
        lambda p: p["model"].update(dropout=0.5),
        lambda p: p["model"].update(end_of_word_suffix="x"),
        lambda p: p["model"]["vocab"].pop("a"),
        lambda p: p["model"]["vocab"].update(a=9999),
        lambda p: p["model"]["merges"].insert(0, ["q", "zzzz"]),
        lambda p: p["model"].update(merges=3),
        lambda p: p.pop("model"),
    ],
)
def test_byte_pairs_of_another_kind_are_refused(pairs, change):
    with pytest.raises(ValueError, match="BytePairTokenizer"):
        tokenizer_from_config(damage(pairs, change))


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        {},
        {"type": "WordTokenizer", "words": "a"},
        {"type": ["CharacterTokenizer"], "characters": "ab"},
        {"type": "CharacterTokenizer"},
        {"type": "CharacterTokenizer", "characters": 3},
        {"type": "CharacterTokenizer", "characters": ""},
        {"type": "CharacterTokenizer", "characters": "ba"},
        {"type": "CharacterTokenizer", "characters": "aab"},
        {"type": "CharacterTokenizer", "characters": "ab", "more": 1},
        {"type": "CharacterTokenizer", "json": "{}"},
    ],
)
def test_a_config_of_no_tokenizer_is_refused(config):
    with pytest.raises(ValueError, match="Tokenizer"):
        tokenizer_from_config(config)


@pytest.mark.parametrize("text", ["", "{", "3", "[]", "{}", "[" * 100_000])
def test_json_of_no_tokenizer_is_refused(pairs, text):
    with pytest.raises(ValueError, match="expects the JSON of one"):
        BytePairTokenizer.from_json(text)


def test_without_the_package_byte_pairs_say_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tokenizers":
            raise ModuleNotFoundError("No module named 'tokenizers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (
        lambda: BytePairTokenizer("abc"),
        lambda: tokenizer_from_config({"type": "BytePairTokenizer", "json": "{}"}),
        lambda: load_corpus("shakespeare", tokens="bpe", context_length=8),
    ):
        with pytest.raises(DataError, match=r"pip install 'xbackprop\[text\]'"):
            call()


@pytest.mark.parametrize("kind", ["characters", "pairs"])
def test_ids_that_no_token_has_are_refused(request, kind):
    tokenizer = request.getfixturevalue("pairs") if kind == "pairs" else CharacterTokenizer("abc")
    last = tokenizer.vocab_size - 1
    for ids in ([0, last + 1], [last, -1], np.array([1, 2**63], dtype=np.uint64)):
        with pytest.raises(ValueError, match=f"position 1.*expected 0 to {last}"):
            tokenizer.decode(ids)
    with pytest.raises(ValueError, match=r"shape \(tokens,\); got \(1, 2\)"):
        tokenizer.decode([[0, 1]])
    with pytest.raises(TypeError, match="integer ids; got float64"):
        tokenizer.decode([0.0])
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(np.array([0, 1], dtype=np.uint8)) == tokenizer.decode([0, 1])
    with xb.use_device("fake"), pytest.raises(TypeError, match="to_host"):
        tokenizer.decode(xb.asarray([0, 1]))


# ---------------------------------------------------------------------------------------- windows


@given(count=st.integers(2, 60), length=st.integers(1, 60), start=st.integers(-9, 2**40))
def test_windows_hold_each_token_once_and_the_next_one(count, length, start):
    tokens = np.arange(start, start + count)
    if count <= length:
        with pytest.raises(ValueError, match=f"more than {length} tokens.*got {count}"):
            token_windows(tokens, length)
        return
    x, y = token_windows(tokens, length)
    assert x.dtype == y.dtype == np.int64
    assert x.shape == y.shape == ((count - 1) // length, length)
    np.testing.assert_array_equal(x.ravel(), tokens[: x.size])
    np.testing.assert_array_equal(y, x + 1)
    before = tokens.copy()
    x[:], y[:] = -1, -2  # arrays of their own
    np.testing.assert_array_equal(tokens, before)


def test_windows_refuse_what_are_no_tokens():
    for tokens, length, error, message in (
        ([1, 2, 3], 0, ValueError, "length >= 1; got 0"),
        ([1, 2, 3], 1.0, TypeError, "whole number; got 1.0"),
        ([1, 2, 3], True, TypeError, "whole number; got True"),
        ([[1, 2, 3]], 1, ValueError, r"got \(1, 3\)"),
        ([1.0, 2.0, 3.0], 1, TypeError, "integer tokens; got float64"),
        ([], 1, ValueError, "more than 1 tokens.*got 0"),
    ):
        with pytest.raises(error, match=message):
            token_windows(tokens, length)
    with xb.use_device("fake"), pytest.raises(TypeError, match="to_host"):
        token_windows(xb.asarray([1, 2, 3]), 1)


# ----------------------------------------------------------------------------------------- corpus


def test_a_corpus_of_characters_holds_the_end_of_the_text_out(write):
    text = "".join(chr(65 + i % 50) for i in range(1000)) + "~"
    corpus = load_corpus(write(text, "own.txt"), context_length=8, test_size=0.25)
    assert corpus.name == "own.txt"
    assert corpus.tokenizer.vocab_size == 51  # those of the test part too
    decode = corpus.tokenizer.decode
    assert decode(corpus.x_train.ravel()) == text[: 93 * 8]
    assert decode(corpus.y_train.ravel()) == text[1 : 93 * 8 + 1]
    assert decode(corpus.x_test.ravel()) == text[751 : 751 + 31 * 8]
    assert decode(corpus.y_test.ravel()) == text[752 : 752 + 31 * 8]
    assert repr(corpus) == "Corpus('own.txt', 51 tokens, x_train (93, 8), x_test (31, 8))"
    for part in (corpus.x_train, corpus.y_train, corpus.x_test, corpus.y_test):
        assert type(part) is np.ndarray
        assert part.dtype == np.int64


def test_a_corpus_of_byte_pairs_learns_from_its_training_part(write):
    pytest.importorskip("tokenizers")
    text = SAMPLE + "zqzqzq" * 200
    share = len("zqzqzq" * 200) / len(text)
    path = write(text)
    corpus = load_corpus(path, tokens="bpe", vocab_size=300, context_length=16, test_size=share)
    expected = BytePairTokenizer(SAMPLE, 300)
    assert corpus.tokenizer.config() == expected.config()
    held_out = expected.encode("zqzqzq" * 200)
    assert len(held_out) == 1200  # no pair of the test part was seen
    np.testing.assert_array_equal(corpus.x_test.ravel(), held_out[: corpus.x_test.size])
    default = load_corpus("shakespeare", tokens="bpe", context_length=64)
    assert default.tokenizer.vocab_size == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "word"}, "tokens expects one of char, bpe; got 'word'"),
        ({"vocab_size": 300}, "vocab_size is of byte pairs"),
        ({"test_size": 0.0}, "test_size expects a share between 0 and 1; got 0.0"),
        ({"test_size": 1.0}, "between 0 and 1; got 1.0"),
        ({"test_size": 1}, "between 0 and 1; got 1"),
        ({"test_size": float("nan")}, "between 0 and 1; got nan"),
        ({"context_length": 0}, "length >= 1; got 0"),
        ({"context_length": 200}, "text.txt: the test part does not fit context_length=200: .*104"),
        ({"context_length": 1000}, "text.txt: the training part does not fit .* got 936"),
    ],
)
def test_a_corpus_refuses_options_out_of_range(write, options, message):
    with pytest.raises(DataError, match=message) as caught:
        load_corpus(write(SAMPLE), **{"context_length": 8, **options})
    assert "\n" not in str(caught.value)


def test_a_corpus_refuses_too_few_bytes_for_pairs(write):
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"text.txt: .*vocab_size >= 256"):
        load_corpus(write(SAMPLE), tokens="bpe", vocab_size=100, context_length=8)
    with pytest.raises(DataError, match=r"text.txt: .*empty"):
        load_corpus(write("a"), tokens="bpe", context_length=8)
    with pytest.raises(DataError, match="the training part does not fit"):
        load_corpus(write("a"), context_length=8)
