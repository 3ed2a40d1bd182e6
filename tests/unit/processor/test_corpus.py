import re
import subprocess
import sys

import pytest

from small_doge.processor.corpus import PROPORTIONS, World, held_out_questions, iterate_mixture, write_document
from small_doge.processor.corpus.programs import run_program
from small_doge.processor.corpus.world import ANIMALS, JOBS


def test_documents_are_pure_functions_of_seed_kind_and_number():
    here = [write_document(kind, i, seed=3) for kind in PROPORTIONS for i in range(5)]
    code = (
        "from small_doge.processor.corpus import *;"
        "print(repr([write_document(k, i, seed=3) for k in PROPORTIONS for i in range(5)]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "5", "PATH": ""},
    )
    assert eval(out.stdout) == here
    assert write_document("world", 0, seed=4) != here[0]


def test_proportions_are_the_published_ones():
    assert list(PROPORTIONS.values()) == [0.7, 0.2, 0.05, 0.05]
    texts = list(iterate_mixture(2000))
    lessons = sum(text.startswith("Lesson: ") for text in texts)
    assert 340 < lessons < 460


def test_documents_are_varied():
    stories = [write_document("world", i) for i in range(2000)]
    assert len(set(stories)) > 1900
    openings = {" ".join(story.split()[1:4]) for story in stories}
    assert len(openings) > 150


def test_every_sum_is_right():
    checked = 0
    for i in range(2000):
        for a, b, c in re.findall(r"(?<![\d+] )\b(\d+) \+ (\d+) = (\d+)", write_document("arithmetic", i)):
            assert int(a) + int(b) == int(c)
            checked += 1
    assert checked > 2000


def test_programs_print_what_is_written_under_them():
    for i in range(300):
        code, output = write_document("python", i).removeprefix("# Python\n").split("\n# Output\n")
        assert run_program(code) == output


def test_stories_agree_with_the_world():
    world = World.of(0)
    seen = 0
    for i in range(1500):
        story = write_document("world", i)
        for name, town in re.findall(r"(\w+) lives in (\w+)\.", story):
            assert world.people[name].town == town
            seen += 1
        for name, job in re.findall(r"(\w+) works as a (\w+)\.", story):
            assert world.people[name].job == job and job in JOBS
        for name, colour, animal in re.findall(r"(\w+) has a (\w+) (\w+) called", story):
            assert (world.people[name].pet_colour, world.people[name].animal) == (colour, animal) and animal in ANIMALS
    assert seen > 150


def test_friends_are_mutual():
    people = World.of(7).people
    assert all(people[p.friend].friend == p.name != p.friend for p in people.values())


@pytest.mark.parametrize("kind", list(PROPORTIONS))
def test_held_out_questions_and_sums_stand_in_no_document(kind):
    questions = held_out_questions(400)
    asked = {q.question for q in questions}
    sums = {q.question.removeprefix("What is ").removesuffix("?") for q in questions if q.kind == "sum"}
    for i in range(4000):
        text = write_document(kind, i)
        assert not asked & set(re.findall(r"[A-Z][^.?\n]*\?", text))
        assert not sums & set(re.findall(r"\d+ \+ \d+", text))


def test_held_out_answers_follow_from_the_documents():
    text = "\n".join(write_document("world", i) for i in range(4000))
    world = World.of(0)
    for question in held_out_questions(100):
        if question.kind == "town":
            name = next(n for n in world.people if n in question.question.replace("?", "").split())
            assert re.search(
                rf"{name} lives in {question.short_answer}|{name} comes from {question.short_answer}", text
            )
        assert question.short_answer in question.answer
