import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.processor import ft_datasets_process, mix_reader, pt_datasets_process, readers
from small_doge.processor.mix_reader import interleave
from small_doge.processor.packing import PackedCollator
from small_doge.processor.stream import StreamLoader


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks, ranges and shards in a small source."""
    monkeypatch.setattr(mix_reader, "BLOCK_ROWS", 16)
    monkeypatch.setattr(mix_reader, "RANGE_BYTES", 4000)
    monkeypatch.setattr(readers, "RANGE_BYTES", 3000)
    monkeypatch.setattr(readers, "RANGE_ROWS", 30)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "chats.jsonl"
    with open(path, "w") as file:
        for i in range(70):
            turns = [{"role": "user", "content": f"What is {i} + 1?"}, {"role": "assistant", "content": f"{i + 1}"}]
            file.write(json.dumps({"messages": turns}) + "\n")
    return str(path)


MIX = [{"embedded:world:100": 0.7}, {"embedded:arithmetic:40": 0.3}]


def mixes(row_format, lines):
    """(door, mix) of a row format."""
    if row_format == "text":
        return pt_datasets_process, MIX
    return ft_datasets_process, [{lines: 0.6}, {"embedded:world:60": 0.4}]


def plain(row):
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}


@pytest.mark.parametrize("packing", [True, "wrapped", False])
@pytest.mark.parametrize("row_format", ["text", "conversation"])
@pytest.mark.parametrize("total", [-1, 30, 300])
def test_a_stream_gives_the_prepared_rows_in_their_order(tiny_tokenizer, tmp_path, lines, row_format, packing, total):
    door, mix = mixes(row_format, lines)
    options = {"processing_class": tiny_tokenizer, "max_length": 64, "packing": packing, "total_sample_size": total}
    options["test_size"] = 5
    prepared = door.mix_datasets_by_ratio(mix, cache_dir=str(tmp_path / "cache"), **options)
    streamed = door.mix_datasets_by_ratio(mix, streaming=True, **options)
    assert [plain(row) for row in streamed["train"]] == list(prepared["train"])
    assert list(streamed["test"].select_columns(prepared["test"].column_names)) == list(prepared["test"])


@pytest.mark.parametrize("total", [-1, 60])
def test_a_stream_goes_on_from_any_row(tiny_tokenizer, total):
    options = {"processing_class": tiny_tokenizer, "max_length": 64, "total_sample_size": total, "streaming": True}
    stream = pt_datasets_process.mix_datasets_by_ratio(MIX, **options)["train"]
    both = list(stream.iterate_with_states())
    rows = [plain(row) for row, _ in both]
    for done in (0, 1, 7, len(rows) // 2, len(rows) - 1):
        again = pt_datasets_process.mix_datasets_by_ratio(MIX, **options)["train"]
        again.load_state_dict(json.loads(json.dumps(both[done][1])))
        assert [plain(row) for row in again] == rows[done + 1 :]


def test_going_on_reads_no_earlier_block_again(tiny_tokenizer, monkeypatch):
    options = {"processing_class": tiny_tokenizer, "max_length": 64, "streaming": True}
    one = [{"embedded:world:100": 1.0}]
    stream = pt_datasets_process.mix_datasets_by_ratio(one, **options)["train"]
    both = list(stream.iterate_with_states())
    again = pt_datasets_process.mix_datasets_by_ratio(one, **options)["train"]
    again.load_state_dict(both[-3][1])
    assert len(list(again)) == 2
    assert again.reports[0].rows <= mix_reader.BLOCK_ROWS < stream.reports[0].rows


def test_a_position_of_another_mix_is_refused(tiny_tokenizer):
    options = {"processing_class": tiny_tokenizer, "max_length": 64, "streaming": True}
    two = pt_datasets_process.mix_datasets_by_ratio(MIX, **options)["train"]
    one = pt_datasets_process.mix_datasets_by_ratio([{"embedded:world:100": 1.0}], **options)["train"]
    with pytest.raises(ValueError, match="belongs to another mix"):
        one.load_state_dict(two.state_dict())


def load_batches(tokenizer, state=None, **options):
    """Batches of four of 40 rows, from a position."""
    mix = {"processing_class": tokenizer, "max_length": 64, "total_sample_size": 40, "streaming": True}
    stream = pt_datasets_process.mix_datasets_by_ratio(MIX, **mix)["train"]
    if state:
        stream.load_state_dict(state)
    return StreamLoader(stream, 4, 0, 1, PackedCollator(), **options)


@pytest.mark.parametrize("fetch_ahead", [False, True])
def test_batches_fetched_ahead_do_not_count(tiny_tokenizer, fetch_ahead):
    load = partial(load_batches, tiny_tokenizer, turns=2, fetch_ahead=fetch_ahead)
    whole = [batch["input_ids"].tolist() for batch in load()]
    assert len(whole) == 20 and whole[:10] == whole[10:]
    for done in (3, 10, 13):
        loader = load()
        for number, _ in enumerate(loader, start=1):
            if number == done + 1:  # one more than was trained on
                break
        rest = [batch["input_ids"].tolist() for batch in load(loader.state_after(done))]
        assert rest == whole[done:]


@pytest.mark.parametrize("fetch_ahead", [False, True])
def test_a_loader_that_went_on_begins_at_the_first_row_when_it_starts_again(tiny_tokenizer, fetch_ahead):
    load = partial(load_batches, tiny_tokenizer, fetch_ahead=fetch_ahead)
    first = load()
    whole = [batch["input_ids"].tolist() for batch in first]
    again = load(first.state_after(7))
    assert [batch["input_ids"].tolist() for batch in again] == whole[7:]
    assert [batch["input_ids"].tolist() for batch in again] == whole


@pytest.mark.parametrize("packing", [True, "wrapped", False])
def test_texts_among_conversations_are_learnt_whole_and_questions_are_not(tiny_tokenizer, tmp_path, packing):
    path = tmp_path / "mixed.jsonl"
    turns = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "It is 2."}]
    rows = [{"text": "Ada reads."}, {"messages": turns}] * 10
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"processing_class": tiny_tokenizer, "max_length": 64, "packing": packing, "streaming": True}
    for row in ft_datasets_process.mix_datasets_by_ratio([{str(path): 1.0}], **options)["train"]:
        learnt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        said = tiny_tokenizer.decode(learnt)
        assert "What is" not in said and ("Ada reads." in said or "It is 2." in said)


def test_processes_share_each_batch(tiny_tokenizer):
    options = {"processing_class": tiny_tokenizer, "max_length": 64, "total_sample_size": 24, "streaming": True}

    def batches(rows, rank, world):
        stream = pt_datasets_process.mix_datasets_by_ratio(MIX, **options)["train"]
        return [b["input_ids"][0].tolist() for b in StreamLoader(stream, rows, rank, world, PackedCollator())]

    alone, first, second = batches(4, 0, 1), batches(2, 0, 2), batches(2, 1, 2)
    assert alone == [a + b for a, b in zip(first, second, strict=True)]


@given(
    ratios=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    counts=st.lists(st.integers(0, 30), min_size=4, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_interleaving_uses_every_row_and_keeps_the_shares(ratios, counts):
    shares = [r / sum(ratios) for r in ratios]
    counts = counts[: len(ratios)]
    order = list(interleave(shares, counts))
    assert [order.count(i) for i in range(len(ratios))] == counts
    until = min((c / s for c, s in zip(counts, shares, strict=True)), default=0)
    for i, share in enumerate(shares):
        assert abs(order[: int(until)].count(i) - share * int(until)) <= len(ratios)


@pytest.mark.parametrize("streaming", [False, True])
def test_wrapped_rows_without_a_learnt_token_are_left_out_and_counted(tiny_tokenizer, tmp_path, streaming, messages):
    path = tmp_path / "chats.jsonl"
    with open(path, "w") as file:
        for i in range(160):
            # The answer comes early in some, before a turn that is cut, and late in others.
            answer = {"role": "assistant", "content": "Yes."}
            early = [{"role": "user", "content": f"{i}?"}, answer, {"role": "user", "content": "more " * 150}, answer]
            late = [{"role": "user", "content": f"{i} "}, answer]
            while len(tiny_tokenizer.apply_chat_template(late, return_dict=True)["input_ids"]) < 112 + i % 9:
                late[0]["content"] += "? "
            file.write(json.dumps({"messages": late if i % 2 else early}) + "\n")
    options = {"processing_class": tiny_tokenizer, "packing": "wrapped", "cache_dir": str(tmp_path / "cache")}
    mixed = ft_datasets_process.mix_datasets_by_ratio(
        [{str(path): 1.0}], max_length=128, test_size=2, streaming=streaming, **options
    )
    rows = list(mixed["train"]) + list(mixed["test"])
    assert len(rows) > 10
    for row in rows:
        assert (PackedCollator()([row])["labels"] != -100).any()
    assert "none of whose tokens is learnt" in messages.text
