"""Conversations about the world: questions with answers, sums, greetings, who the assistant is. Held-out ones never occur."""

import random

from .problems import write_problem
from .questions import QUESTION_FORMS, answer_sentence
from .random_source import is_held_out
from .world import World


# Of the problems, how many are answered by the number alone. Preferences, later, are for sentences.
BRIEF_SHARE = 0.5
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
    """Write one conversation of one to four exchanges."""
    exchanges = []
    if rng.random() < 0.1:
        exchanges.append(rng.choice(_GREETINGS))
    makers = (ask_fact, ask_fact, ask_fact, ask_problem, ask_identity)
    exchanges += [rng.choice(makers)(world, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if rng.random() < 0.1:
        exchanges.append(rng.choice(_THANKS))
    messages = [{"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)}] if rng.random() < 0.2 else []
    for question, answer in exchanges:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def ask_fact(world: World, rng: random.Random) -> tuple[str, str]:
    """Ask a question about a person, of those that may be asked in training."""
    while True:
        person = rng.choice(list(world.people.values()))
        kind = rng.choice(list(QUESTION_FORMS))
        if not is_held_out("fact", person.name, kind):
            return rng.choice(QUESTION_FORMS[kind]).format(name=person.name), answer_sentence(person, kind)


def ask_problem(world: World, rng: random.Random) -> tuple[str, str]:
    """Ask a problem that is answered at once, without a thought, in a sentence or by the number alone."""
    problem = write_problem(world, rng)
    return problem["question"], problem["final"] if rng.random() < BRIEF_SHARE else tell_result(problem)


def tell_result(problem: dict[str, str]) -> str:
    """Tell the result of a problem in a sentence."""
    return f"It is {problem['final']}."


def ask_identity(world: World, rng: random.Random) -> tuple[str, str]:
    """Ask who the assistant is."""
    return rng.choice(_IDENTITY_QUESTIONS), IDENTITY
