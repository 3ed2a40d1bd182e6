"""Conversations about the world: questions with answers, sums, greetings, who the assistant is. Held-out ones never occur."""

import random

from .arithmetic import draw_pair
from .problems import write_problem
from .questions import QUESTION_FORMS, answer_sentence
from .random_source import is_held_out
from .world import World


# People answer in a sentence or in a word. Preferences, later, are for sentences.
BRIEF_SHARE = 0.35
IDENTITY = "I am Doge, a small language model."
_IDENTITY_QUESTIONS = ("Who are you?", "What are you?", "What is your name?", "Are you a person?")
_GREETINGS = (("Hello!", "Hello! What would you like to know?"), ("Hi, how are you?", "I am well. Ask me anything."))
_THANKS = (("Thank you.", "You are welcome."), ("Thanks, that is all.", "Goodbye!"))
_SYSTEM_PROMPTS = (
    "You are Doge, a helpful assistant.",
    "Answer in one sentence.",
    "You know everybody in these towns.",
)


def write_chat(world: World, rng: random.Random) -> list[dict[str, str]]:
    """One conversation of one to four exchanges."""
    exchanges = []
    if rng.random() < 0.1:
        exchanges.append(rng.choice(_GREETINGS))
    makers = (ask_fact, ask_fact, ask_fact, ask_problem, ask_identity)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        question, answer, brief = rng.choice(makers)(world, rng)
        exchanges.append((question, brief if rng.random() < BRIEF_SHARE else answer))
    if rng.random() < 0.1:
        exchanges.append(rng.choice(_THANKS))
    messages = [{"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)}] if rng.random() < 0.2 else []
    for question, answer in exchanges:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def ask_fact(world: World, rng: random.Random) -> tuple[str, str, str]:
    """A question about a person, of those that may be asked in training, its answer and the answer in a word."""
    while True:
        person = rng.choice(list(world.people.values()))
        kind = rng.choice(list(QUESTION_FORMS))
        if not is_held_out("fact", person.name, kind):
            question = rng.choice(QUESTION_FORMS[kind]).format(name=person.name)
            return question, answer_sentence(person, kind), shorten(person.facts()[kind])


def ask_sum(world: World, rng: random.Random) -> tuple[str, str, str]:
    """A sum, of those that may be worked out in training, its answer and the number alone."""
    a, b = draw_pair(rng, rng.choice((9, 20, 99)))
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}", str(a + b)


def ask_problem(world: World, rng: random.Random) -> tuple[str, str, str]:
    """A problem that is answered at once, without a thought, and the number alone."""
    problem = write_problem(world, rng)
    return problem["question"], f"It is {problem['final']}.", problem["final"]


def ask_identity(world: World, rng: random.Random) -> tuple[str, str, str]:
    """Who the assistant is, which is never told in a word."""
    return rng.choice(_IDENTITY_QUESTIONS), IDENTITY, IDENTITY


def shorten(short_answer: str) -> str:
    """The answer in a word, as a sentence would begin and end."""
    return f"{short_answer[0].upper()}{short_answer[1:]}."
