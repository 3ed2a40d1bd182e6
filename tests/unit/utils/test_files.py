import json

import pytest

from small_doge.utils.files import whole_folder, write_json, write_text
from small_doge.utils.suggest import unknown_name_message


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    write_json(tmp_path / "a.txt", {"two": 2})
    assert json.loads((tmp_path / "a.txt").read_text()) == {"two": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_fails_does_not_appear_and_keeps_the_old_one(tmp_path):
    with whole_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("2")
        raise RuntimeError
    assert (tmp_path / "out" / "x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_unknown_names_get_the_near_miss_and_a_short_list():
    message = unknown_name_message(
        "setting", "lerning_rate", ["learning_rate", *(f"s{i}" for i in range(30))], limit=3
    )
    assert message.startswith("unknown setting 'lerning_rate'; did you mean 'learning_rate'? Known: ")
    assert message.endswith("and 28 more")
