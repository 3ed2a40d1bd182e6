import json
import os
from pathlib import Path

import pytest

from small_doge.utils.errors import UserError
from small_doge.utils.files import check_output, whole_folder, write_json, write_text
from small_doge.utils.suggest import unknown_name_message


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    write_json(tmp_path / "a.txt", {"two": 2})
    assert json.loads((tmp_path / "a.txt").read_text()) == {"two": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_fails_does_not_appear_and_keeps_the_old_one(tmp_path):
    with whole_folder(tmp_path / "out", "us") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out", "us") as folder:  # noqa: PT012
        (folder / "x").write_text("2")
        raise RuntimeError
    assert (tmp_path / "out" / "x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def write(path, content="1", made_by="us", **settings):
    with whole_folder(path, made_by, **settings) as folder:
        (folder / "sub").mkdir()
        (folder / "x").write_text(content)
        (folder / "sub" / "y").write_text(content)


def read_tree(path):
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file() and p.name[0] != "."}


def test_what_the_same_command_wrote_is_replaced_whole(tmp_path):
    write(tmp_path / "out", "1")
    with whole_folder(tmp_path / "out", "us") as folder:
        (folder / "z").write_text("2")
    assert read_tree(tmp_path / "out") == {"z": "2"}
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")


def add_notes(folder):
    (folder / "sub" / "notes").mkdir()
    (folder / "sub" / "notes" / "mine.txt").write_text("mine")


def edit(folder):
    (folder / "x").write_text("edited")


def remove_record(folder):
    (folder / ".small-doge.json").unlink()


def tear_record(folder):
    (folder / ".small-doge.json").write_text('{"made_by": "us", "fi')


def add_link(folder):
    (folder / "link").symlink_to("/nowhere")


def add_empty_folder(folder):
    (folder / "empty").mkdir()


CHANGES = [add_notes, edit, remove_record, tear_record, add_link, add_empty_folder]


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_with_anything_else_is_left_as_it_is_unless_overwrite_is_given(tmp_path, change):
    out = tmp_path / "out"
    write(out)
    change(out)
    before = read_tree(out)
    with pytest.raises(UserError, match="--overwrite"):
        write(out, "2")
    assert read_tree(out) == before
    write(out, "2", overwrite=True)
    assert read_tree(out) == before | {"x": "2", "sub/y": "2"}
    assert change is not add_link or (out / "link").is_symlink()
    assert change is not add_empty_folder or (out / "empty").is_dir()


def test_a_folder_of_another_command_is_left_as_it_is(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(UserError, match="`them` did not write.*sub/y, x"):
        write(tmp_path / "out", made_by="them")


def test_places_that_can_not_be_replaced_are_refused_before_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    monkeypatch.chdir(tmp_path / "folder")
    reasons = {"file": "is a file", "file/below": "is a file", "link": "is a link", "dangling": "is a link"}
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason):
            check_output(tmp_path / name, "us")
    for place in (".", "..", "/", Path.home(), tmp_path):
        with pytest.raises(UserError, match="where you are working|can't be written"):
            check_output(place, "us", overwrite=True)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write to")
def test_a_read_only_place_is_refused_before_work():
    with pytest.raises(UserError, match="can't be written to"):
        check_output("/proc/models/mine", "us")


def test_a_source_is_never_replaced_by_what_is_made_from_it(tmp_path):
    source = tmp_path / "out" / "rows.jsonl"
    source.parent.mkdir()
    source.write_text("{}")
    for path in (source, source.parent, os.path.relpath(source)):
        with pytest.raises(UserError, match="which is read to make it"):
            check_output(tmp_path / "out", "us", overwrite=True, sources=["embedded:world", path])


def test_unknown_names_get_the_near_miss_and_a_short_list():
    message = unknown_name_message(
        "setting", "lerning_rate", ["learning_rate", *(f"s{i}" for i in range(30))], limit=3
    )
    assert message.startswith("unknown setting 'lerning_rate'; did you mean 'learning_rate'? Known: ")
    assert message.endswith("and 28 more")


def test_whoever_may_read_the_settings_of_a_folder_may_read_its_weights(tmp_path):
    with whole_folder(tmp_path / "out", "us") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "config.json").chmod(0o640)
        (folder / "model.safetensors").touch(0o600)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o640
