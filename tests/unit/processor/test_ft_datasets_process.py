import json

import pytest

from small_doge.processor.chat_template import CHAT_TEMPLATE
from small_doge.processor.ft_datasets_process import mix_datasets_by_radio, mix_datasets_by_ratio


@pytest.fixture
def write(tmp_path):
    def call(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return call


@pytest.fixture
def mix(tiny_tokenizer, tmp_path):
    def call(shares, **settings):
        settings = {
            "processing_class": tiny_tokenizer,
            "max_length": 128,
            "cache_dir": str(tmp_path / "c"),
            **settings,
        }
        return mix_datasets_by_ratio(shares, **settings)

    return call


def chat(i):
    return {"messages": [{"role": "user", "content": f"Ask {i}"}, {"role": "assistant", "content": f"Say {i}"}]}


def preference(i):
    return {"prompt": f"Pick {i}", "chosen": f"good {i}", "rejected": f"bad {i}"}


def learnt(row, tokenizer):
    return tokenizer.decode([label for label in row["labels"] if label != -100])


def whole(row, tokenizer):
    return tokenizer.decode(row["input_ids"])


def test_the_answers_and_their_ends_are_learnt_and_nothing_else(mix, write, tiny_tokenizer):
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "First."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "Second."},
    ]
    row = mix([{write("a.jsonl", [{"messages": turns}]): 1.0}])["train"][0]
    assert learnt(row, tiny_tokenizer) == "First.<|eot_id|>Second.<|eot_id|>"
    assert whole(row, tiny_tokenizer) == tiny_tokenizer.apply_chat_template(turns, tokenize=False)
    assert row["seq_lengths"] == [len(row["input_ids"])]


def test_the_mask_is_that_of_transformers(mix, write, tiny_tokenizer):
    rows = mix([{write("a.jsonl", [chat(i) for i in range(20)]): 1.0}])["train"]
    for row in rows:
        number = whole(row, tiny_tokenizer).split("Say ")[1].split("<")[0]
        theirs = tiny_tokenizer.apply_chat_template(
            chat(int(number))["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        assert row["input_ids"] == theirs["input_ids"]
        assert [int(label != -100) for label in row["labels"]] == theirs["assistant_masks"]


def test_of_a_mix_sft_takes_chosen_answers_and_dpo_preferences_alone(mix, write, tiny_tokenizer, messages):
    shares = [{write("chats.jsonl", map(chat, range(8))): 0.5}, {write("prefs.jsonl", map(preference, range(8))): 0.5}]
    texts = {learnt(row, tiny_tokenizer) for row in mix(shares)["train"]}
    assert texts == {f"Say {i}<|eot_id|>" for i in range(8)} | {f"good {i}<|eot_id|>" for i in range(8)}
    rows = mix(shares, row_format="preference", total_sample_size=8)["train"]
    assert {row["chosen"][0]["content"] for row in rows} == {f"good {i}" for i in range(8)}
    assert rows.column_names == ["prompt", "chosen", "rejected", "num_tokens", "source"]
    assert "holds no preferences" in messages.text
    with pytest.raises(ValueError, match="none of the data sets holds preferences"):
        mix([{next(iter(shares[0])): 1.0}], row_format="preference")


def test_rows_that_are_no_preferences_are_skipped_for_dpo(mix, write):
    path = write("mixed.jsonl", [row for i in range(4) for row in (preference(i), chat(i))])
    assert len(mix([{path: 1.0}], row_format="preference", max_bad_rows=0)["train"]) == 4


def test_grpo_rows_have_a_prompt_and_a_reference(mix, write):
    path = write("p.jsonl", [{"question": f"{i} + 1?", "final": str(i + 1)} for i in range(5)])
    rows = mix([{path: 1.0}], row_format="problem", system_prompt="Think.")["train"]
    assert sorted(row["solution"] for row in rows) == ["1", "2", "3", "4", "5"]
    assert [m["role"] for m in rows[0]["prompt"]] == ["system", "user"]


@pytest.mark.parametrize("tags", [("<think>", "</think>"), ("<thinking>", "</thinking>")])
def test_the_thinking_template_marks_thoughts_with_the_tags_of_the_setting(mix, write, tiny_tokenizer, tags):
    path = write("t.jsonl", [{"question": "1 + 1?", "rationale": "I add.", "final": "2"}])
    row = mix([{path: 1.0}], apply_thinking_template=True, thinking_tags=tags)["train"][0]
    assert learnt(row, tiny_tokenizer) == f"{tags[0]}\nI add.\n{tags[1]}\n\n2<|eot_id|>"
    row = mix([{path: 1.0}])["train"][0]
    assert learnt(row, tiny_tokenizer) == "I add.\n2<|eot_id|>"


def test_the_guides_identity_function_puts_turns_before_the_prompt(mix, write, tiny_tokenizer):
    def custom_formatting_func(example):
        conversation = [
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "I am Doge."},
            {"role": "user", "content": example["prompt"]},
            {"role": "assistant", "content": example["response"]},
        ]
        return {"conversation": conversation}

    path = write("r.jsonl", [{"prompt": "Hi", "response": "Hello"}])
    row = mix([{path: 1.0}], formatting_func=custom_formatting_func)["train"][0]
    assert learnt(row, tiny_tokenizer) == "I am Doge.<|eot_id|>Hello<|eot_id|>"


def test_identity_begins_its_share_of_conversations_and_the_system_prompt_all_without_one(mix, write, tiny_tokenizer):
    path = write("c.jsonl", [chat(i) for i in range(300)])
    rows = mix([{path: 1.0}], identity="I am Doge.", identity_share=0.3, system_prompt="Be kind.")["train"]
    said = sum("I am Doge.<|eot_id|>" in learnt(row, tiny_tokenizer) for row in rows)
    assert 60 < said < 120
    assert all("Be kind." in whole(row, tiny_tokenizer) for row in rows)


def test_tools_reach_the_template(mix, write, tiny_tokenizer):
    tool = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}
    path = write("tools.jsonl", [{**chat(1), "tools": [tool]}, {**chat(2), "tools": json.dumps([tool])}, chat(3)])
    texts = [whole(row, tiny_tokenizer) for row in mix([{path: 1.0}], max_length=512)["train"]]
    assert sum('"name": "add"' in text for text in texts) == 2
    bad = write("bad.jsonl", [{**chat(1), "tools": "{"}, chat(2)])
    assert len(mix([{bad: 1.0}], max_bad_rows=1)["train"]) == 1


def test_tool_calls_are_learnt_and_their_results_are_not(mix, write, tiny_tokenizer):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    turns = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    row = mix([{write("calls.jsonl", [{"messages": turns}]): 1.0}])["train"][0]
    text = learnt(row, tiny_tokenizer)
    assert '"name": "add"' in text and "It is 3." in text and "tool" not in text


def test_an_answer_that_would_be_cut_away_is_reported_and_a_long_one_is_cut(mix, write, tiny_tokenizer, messages):
    long = {"messages": [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "lost"}]}
    rambling = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "word " * 300}]}
    rows = mix([{write("l.jsonl", [chat(1), long, rambling]): 1.0}], max_length=48)["train"]
    assert sorted(len(row["input_ids"]) for row in rows)[-1] == 48 and len(rows) == 2
    assert "the answer begins after max_length=48 tokens and would be cut away" in messages.text


def test_packed_conversations_stay_whole_and_keep_their_masks(mix, write, tiny_tokenizer):
    path = write("c.jsonl", [chat(i) for i in range(60)])
    rows = mix([{path: 1.0}], packing=True)["train"]
    assert len(rows) < 30
    text = "".join(learnt(row, tiny_tokenizer) for row in rows)
    assert sorted(text.split("<|eot_id|>")[:-1]) == sorted(f"Say {i}" for i in range(60))


def test_padded_rows_have_one_length_and_a_mask(mix, write, tiny_tokenizer):
    row = mix([{write("c.jsonl", [chat(1)]): 1.0}], padding=True)["train"][0]
    length = row["seq_lengths"][0]
    assert len(row["input_ids"]) == len(row["labels"]) == len(row["attention_mask"]) == 128
    assert row["attention_mask"] == [1] * length + [0] * (128 - length)
    assert set(row["input_ids"][length:]) == {tiny_tokenizer.pad_token_id} and set(row["labels"][length:]) == {-100}


def test_prompts_of_the_test_split_never_stand_in_training(mix, write, tiny_tokenizer):
    rows = [chat(i % 30) for i in range(120)]  # every conversation four times
    splits = mix([{write("c.jsonl", rows): 1.0}], test_size=8)
    asked = [
        {whole(row, tiny_tokenizer).split("Ask ")[1].split("<")[0] for row in splits[s]} for s in ("train", "test")
    ]
    assert asked[1] and not asked[0] & asked[1]


def test_without_the_chat_template_rows_stay_messages(mix, write):
    rows = mix([{write("c.jsonl", [chat(1)]): 1.0}], apply_chat_template=False)["train"]
    assert rows[0]["messages"] == chat(1)["messages"]


def test_a_template_that_marks_no_answers_is_replaced_or_refused(mix, write, tiny_tokenizer, messages):
    from copy import deepcopy

    path = write("c.jsonl", [chat(1)])
    expected = mix([{path: 1.0}])["train"][0]
    other = deepcopy(tiny_tokenizer)
    other.chat_template = CHAT_TEMPLATE.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    assert mix([{path: 1.0}], processing_class=other)["train"][0] == expected
    assert "does not mark answers: using this project's" in messages.text
    stranger = deepcopy(other)
    stranger.get_vocab = lambda: {}
    with pytest.raises(ValueError, match="does not mark what the assistant says"):
        mix([{path: 1.0}], processing_class=stranger, seed=1)


def test_a_formatting_function_that_fails_is_a_reason_not_a_crash(mix, write):
    path = write("c.jsonl", [chat(1)] * 3)
    with pytest.raises(ValueError, match="formatting_func: KeyError: 'question'"):
        mix([{path: 1.0}], formatting_func=lambda row: {"conversation": row["question"]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"row_format": "conversations"}, "unknown row format 'conversations'; did you mean"),
        ({"thinking_tags": "<think>"}, "thinking_tags='<think>' must be two texts"),
        ({"identity": "x", "identity_share": 0}, "identity_share=0 must lie in"),
        ({"packing": "wraped"}, "unknown packing 'wraped'; did you mean 'wrapped'"),
        ({"test_size": -1}, "test_size=-1 must not be negative"),
        ({"stage": "dpo"}, "stage: say row_format, which is .* preference for dpo"),
        ({"max_length": None}, "max_length=None must be at least 2"),
    ],
)
def test_bad_settings_are_named(mix, write, settings, message):
    with pytest.raises(ValueError, match=message):
        mix([{write("c.jsonl", [chat(1)]): 1.0}], **settings)


def test_the_guides_spelling_is_an_alias(tiny_tokenizer, write, tmp_path):
    path = write("c.jsonl", [chat(1)])
    settings = {"processing_class": tiny_tokenizer, "cache_dir": str(tmp_path)}
    one = mix_datasets_by_ratio([{path: 1.0}], **settings)["train"].to_dict()
    assert mix_datasets_by_radio(datasets_and_ratios=[{path: 1.0}], **settings)["train"].to_dict() == one
