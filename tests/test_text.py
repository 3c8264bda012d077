from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from questlib.recipe import LAYOUTS, TextLayout
from questlib.text import (
    PASSES,
    SpecialTokens,
    build_passes,
    encode_passes,
    find_special_tokens,
    joint_lengths,
    load_tokenizer,
    token_coverage,
)

BERT = SpecialTokens(prefix=[1], middle=[2], suffix=[2])
ROBERTA = SpecialTokens(prefix=[1], middle=[2, 2], suffix=[2])
LAYOUT = TextLayout(layout="pair", max_length=16, title_tokens=3)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "question_title": ["how", "why is"],
            "question_body": ["the body is good", "x"],
            "answer": ["the answer", "step to step to step to step to step to step to step"],
        }
    )


@pytest.fixture(scope="module")
def tokenizer(encoder_folder: Path):
    return load_tokenizer(encoder_folder)


def test_layouts_are_those_that_a_recipe_may_name() -> None:
    assert sorted(LAYOUTS) == sorted(PASSES)


def encode(frame: pd.DataFrame, tokenizer, layout: TextLayout, folder: Path):
    return encode_passes(frame, tokenizer, layout, cache_folder=folder)


def test_joint_layout_with_separators_puts_title_body_and_answer_in_one_pass(frame, tokenizer, tmp_path):
    row = encode(frame, tokenizer, TextLayout(layout="joint", max_length=64), tmp_path)[0]
    assert [tokenizer.decode(ids) for ids in row["input_ids"]] == [
        "[CLS] how [SEP] the body is good [SEP] the answer [SEP]"
    ]
    assert row["kinds"] == [0]


def test_joint_layout_with_space_has_no_separator_inside(frame, tokenizer, tmp_path):
    layout = TextLayout(layout="joint", separator="space", max_length=64)
    row = encode(frame, tokenizer, layout, tmp_path)[0]
    assert tokenizer.decode(row["input_ids"][0]) == "[CLS] how the body is good the answer [SEP]"


def test_pair_layout_makes_a_question_pass_and_an_answer_pass(frame, tokenizer, tmp_path):
    row = encode(frame, tokenizer, TextLayout(layout="pair", max_length=64), tmp_path)[0]
    assert [tokenizer.decode(ids) for ids in row["input_ids"]] == [
        "[CLS] how [SEP] the body is good [SEP]",
        "[CLS] how [SEP] the answer [SEP]",
    ]
    assert row["kinds"] == [0, 1]
    assert row["length"] == sum(len(ids) for ids in row["input_ids"])


def test_question_layout_reads_no_answer(frame, tokenizer, tmp_path):
    layout = TextLayout(layout="question", max_length=64)
    row = encode(frame, tokenizer, layout, tmp_path)[0]
    assert [tokenizer.decode(ids) for ids in row["input_ids"]] == ["[CLS] how [SEP] the body is good [SEP]"]
    assert row["kinds"] == [0]
    assert encode(frame.assign(answer="another"), tokenizer, layout, tmp_path)[0] == row


def test_token_types_mark_the_last_part(frame, tokenizer, tmp_path):
    row = encode(frame, tokenizer, TextLayout(layout="joint", max_length=64), tmp_path)[0]
    assert row["token_type_ids"] == [[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]]


def test_truncation_head_only_drops_the_tail():
    layout = replace(LAYOUT, max_length=8, head_share=1.0)
    [(ids, _)] = build_passes([[10], list(range(20, 40))], layout, BERT)
    assert ids == [1, 10, 2, 20, 21, 22, 23, 2]


def test_truncation_head_and_tail_keeps_both_ends():
    layout = replace(LAYOUT, max_length=8, head_share=0.5)
    [(ids, _)] = build_passes([[10], list(range(20, 40))], layout, BERT)
    assert ids == [1, 10, 2, 20, 21, 38, 39, 2]


def test_title_budget_holds_where_the_body_is_long():
    [(ids, _)] = build_passes([list(range(10, 20)), list(range(20, 60))], LAYOUT, BERT)
    assert ids[:5] == [1, 10, 11, 12, 2]


def test_unused_budget_goes_to_the_other_parts():
    layout = replace(LAYOUT, layout="joint", body_share=0.5)
    [(ids, _)] = build_passes([[10], [20], list(range(30, 60))], layout, BERT)
    assert len(ids) == layout.max_length
    assert ids == [1, 10, 2, 20, 2, *range(30, 40), 2]


def test_body_share_divides_a_joint_pass():
    layout = replace(LAYOUT, layout="joint", max_length=37, body_share=0.7)
    [(ids, _)] = build_passes([[10] * 9, [20] * 99, [30] * 99], layout, BERT)
    assert (ids.count(10), ids.count(20), ids.count(30)) == (3, 21, 9)


def test_stride_makes_overlapping_windows_that_lose_no_token():
    layout = replace(LAYOUT, max_length=10, title_tokens=2, stride=3, max_windows=9)
    passes = build_passes([[5], list(range(20, 40))], layout, BERT)
    contents = [ids[1:-1] for ids, _ in passes]
    assert len(passes) > 1
    assert set(range(20, 40)) <= {token for content in contents for token in content}
    for left, right in zip(contents, contents[1:], strict=False):
        assert left[-3:] == right[:3]


def test_stride_leaves_a_text_that_fits_as_one_pass():
    layout = replace(LAYOUT, stride=3)
    assert build_passes([[5], [6]], layout, BERT) == build_passes([[5], [6]], replace(layout, stride=0), BERT)


def test_max_windows_bounds_the_passes():
    layout = replace(LAYOUT, stride=2, max_windows=2)
    assert len(build_passes([[5], list(range(500))], layout, BERT)) == 2


@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    max_length=st.integers(8, 60),
    title_tokens=st.integers(1, 8),
    body_share=st.floats(0, 1),
    head_share=st.floats(0, 1),
    stride=st.integers(0, 4),
    special=st.sampled_from([BERT, ROBERTA]),
)
def test_no_pass_is_longer_than_max_length_nor_shorter_than_it_need_be(
    lengths, max_length, title_tokens, body_share, head_share, stride, special
):
    layout = TextLayout(
        layout="joint", max_length=max_length, title_tokens=title_tokens, body_share=body_share, head_share=head_share,
        stride=stride, max_windows=64,
    )  # fmt: skip
    parts = [[100 + number] * length for number, length in enumerate(lengths)]
    passes = build_passes(parts, layout, special)
    whole = sum(lengths) + special.n_outer + len(special.middle) * (len(parts) - 1)
    assert passes
    for ids, types in passes:
        assert len(ids) == len(types) <= max_length
        assert ids[:1] == special.prefix
        assert ids[-1:] == special.suffix
    if not stride:
        assert len(passes[0][0]) == min(whole, max_length)


def test_special_tokens_are_read_off_the_tokenizer(tokenizer):
    assert find_special_tokens(tokenizer) == BERT


def test_joint_lengths_count_special_tokens_and_coverage_is_their_share(frame, tokenizer):
    lengths = joint_lengths(frame, tokenizer)
    assert lengths.tolist() == [9, 18]
    assert token_coverage(lengths, limits=(8, 9, 20)) == {8: 0.0, 9: 0.5, 20: 1.0}


def test_empty_and_unknown_text_still_makes_a_pass(tokenizer, tmp_path):
    frame = pd.DataFrame({"question_title": [""], "question_body": [""], "answer": ["日本語 😀"]})
    row = encode(frame, tokenizer, LAYOUT, tmp_path)[0]
    assert [len(ids) for ids in row["input_ids"]] == [3, 7]  # three ideographs and a face, each a token


def test_passes_are_memory_mapped_and_found_again(frame, tokenizer, tmp_path):
    first = encode(frame, tokenizer, LAYOUT, tmp_path)
    [file] = tmp_path.glob("*.arrow")
    written = file.stat().st_mtime_ns
    again = encode(frame, tokenizer, LAYOUT, tmp_path)
    assert file.stat().st_mtime_ns == written
    assert again.cache_files == [{"filename": str(file)}]
    assert again[:] == first[:]


@pytest.mark.parametrize("change", ["text", "layout", "tokenizer"])
def test_a_change_is_noticed_by_the_cache(change, frame, tokenizer, tmp_path):
    encode(frame, tokenizer, LAYOUT, tmp_path)
    layout = replace(LAYOUT, head_share=0.5) if change == "layout" else LAYOUT
    if change == "text":
        frame = frame.assign(answer=["the answer", "another"])
    if change == "tokenizer":
        toy.write_tokenizer(tmp_path / "other")
        tokenizer = load_tokenizer(tmp_path / "other")
        tokenizer.add_tokens(["anotherword"])
    encode(frame, tokenizer, layout, tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 2


def test_a_failed_tokenisation_leaves_no_file(frame, tokenizer, tmp_path):
    with pytest.raises(KeyError, match="answer"):
        encode(frame.drop(columns="answer"), tokenizer, LAYOUT, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layout", "par", "did you mean 'pair'"),
        ("separator", "none", "unknown separator"),
        ("max_length", 4, "max_length must lie in"),
        ("head_share", 1.5, "head_share must lie in"),
        ("stride", 9, "stride must lie in"),
        ("max_windows", 0, "max_windows must lie in"),
    ],
)
def test_layout_refuses_bad_values_by_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(LAYOUT, **{field: value})


def test_more_rows_than_one_chunk_keep_their_order(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("questlib.text._ROWS_AT_A_TIME", 3)
    words = list("abcdefgh")
    frame = pd.DataFrame({"question_title": words, "question_body": words, "answer": words})
    passes = encode(frame, tokenizer, LAYOUT, tmp_path)
    firsts = [row["input_ids"][0][1] for row in passes]
    assert firsts == tokenizer.convert_tokens_to_ids(words)
    assert joint_lengths(frame, tokenizer).tolist() == [5] * 8
    assert np.array_equal(passes["length"], [10] * 8)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_tokens_that_were_cut_off_on_disk_are_made_anew_with_a_warning(
    frame, tokenizer, tmp_path, share, caplog
) -> None:
    many = pd.concat([frame] * 700, ignore_index=True)
    whole = encode_passes(many, tokenizer, LAYOUT, cache_folder=tmp_path)[:]
    (path,) = tmp_path.glob("*.arrow")
    content = path.read_bytes()
    path.unlink()  # the one that is mapped stays as it is
    path.write_bytes(content[: int(share * len(content))])
    assert encode_passes(many, tokenizer, LAYOUT, cache_folder=tmp_path)[:] == whole
    assert f"{path} was damaged and is made anew" in caplog.text
