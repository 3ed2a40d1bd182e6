"""Questions about the world and their answers, for held-out tests and for the later stages."""

from dataclasses import dataclass

from .arithmetic import EASY_DIGITS
from .random_source import is_held_out, is_held_out_sum, random_source
from .world import Person, World


QUESTION_FORMS = {
    "town": ["Where does {name} live?", "In which town does {name} live?"],
    "job": ["What is the job of {name}?", "What work does {name} do?"],
    "animal": ["What animal does {name} have?", "Which animal does {name} keep?"],
    "pet_name": ["What is the pet of {name} called?"],
    "pet_colour": ["What colour is the pet of {name}?"],
    "object": ["What does {name} own?"],
    "object_colour": ["What colour is the thing that {name} owns?"],
    "friend": ["Who is the friend of {name}?", "Who is {name} friends with?"],
    "tool": ["Which tool does {name} use?"],
    "workplace": ["Where does {name} work?"],
    "weather": ["What is the weather like where {name} lives?"],
    "sound": ["What does the pet of {name} do when it calls?"],
}
_ANSWERS = {
    "town": "{name} lives in {answer}.",
    "job": "{name} is a {answer}.",
    "animal": "{name} has a {answer}.",
    "pet_name": "It is called {answer}.",
    "pet_colour": "It is {answer}.",
    "object": "{name} owns a {answer}.",
    "object_colour": "It is {answer}.",
    "friend": "The friend of {name} is {answer}.",
    "tool": "{name} uses {answer}.",
    "workplace": "{name} works at {answer}.",
    "weather": "It is often {answer} there.",
    "sound": "It {answer}.",
}


@dataclass(frozen=True)
class Question:
    """A question, the sentence that answers it, and the words that must be in a right answer."""

    kind: str
    question: str
    answer: str
    short_answer: str


def answer_sentence(person: Person, kind: str) -> str:
    """Return the answer to a question of this kind about this person, as a sentence."""
    return _ANSWERS[kind].format(name=person.name, answer=person.facts()[kind])


def held_out_questions(count: int, seed: int = 0) -> list[Question]:
    """Questions that no document asks, about facts that documents tell, and sums that no document works out.

    Four in five are about people, one in five is arithmetic.
    """
    world = World.of(seed)
    rng = random_source(seed, "held-out")
    facts = [(p, kind) for p in world.people.values() for kind in QUESTION_FORMS if is_held_out("fact", p.name, kind)]
    easy = [10 * tens + ones for tens in range(EASY_DIGITS + 1) for ones in range(EASY_DIGITS + 1)]
    sums = [(a, b) for a in easy for b in easy if is_held_out_sum(a, b)]
    questions = []
    for index in range(count):
        if index % 5 == 4:
            a, b = rng.choice(sums)
            questions.append(Question("sum", f"What is {a} + {b}?", f"{a} + {b} = {a + b}", str(a + b)))
        else:
            person, kind = rng.choice(facts)
            text = rng.choice(QUESTION_FORMS[kind]).format(name=person.name)
            questions.append(Question(kind, text, answer_sentence(person, kind), person.facts()[kind]))
    return questions
