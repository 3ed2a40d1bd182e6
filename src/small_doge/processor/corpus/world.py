"""The people, animals and places of the world, and what follows from what."""

from dataclasses import dataclass
from functools import lru_cache

from .random_source import random_source


NAMES = [
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Ella",
    "Finn",
    "Grace",
    "Hugo",
    "Iris",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olive",
    "Paul",
    "Quinn",
    "Rosa",
    "Sam",
    "Tara",
    "Uma",
    "Vera",
    "Will",
    "Xena",
    "Yusuf",
    "Zoe",
    "Amir",
    "Bella",
    "Carl",
    "Dora",
    "Eli",
    "Fay",
    "Gus",
    "Hana",
    "Ivan",
    "Jane",
    "Kurt",
    "Lily",
    "Max",
    "Nora",
    "Omar",
    "Pia",
    "Rob",
    "Sara",
    "Tom",
    "Una",
    "Vic",
    "Wren",
]
WOMEN = {
    "Ada",
    "Cleo",
    "Ella",
    "Grace",
    "Iris",
    "Kate",
    "Mia",
    "Olive",
    "Rosa",
    "Tara",
    "Uma",
    "Vera",
    "Xena",
    "Zoe",
    "Bella",
    "Dora",
    "Fay",
    "Hana",
    "Jane",
    "Lily",
    "Nora",
    "Pia",
    "Sara",
    "Una",
    "Wren",
}
# Each town stands in a landscape, which decides its weather and what grows there.
TOWNS = {
    "Redford": "river",
    "Millbrook": "river",
    "Highcliff": "mountain",
    "Stonepeak": "mountain",
    "Oakhollow": "forest",
    "Pinewood": "forest",
    "Sandport": "coast",
    "Gullhaven": "coast",
}
LANDSCAPES = {
    "river": {"weather": "misty", "food": "rice", "sight": "an old bridge"},
    "mountain": {"weather": "snowy", "food": "cheese", "sight": "a high tower"},
    "forest": {"weather": "rainy", "food": "mushrooms", "sight": "a giant tree"},
    "coast": {"weather": "windy", "food": "fish", "sight": "a white lighthouse"},
}
# Each job has a tool, a thing made and a place of work.
JOBS = {
    "baker": ("an oven", "bread", "the bakery"),
    "carpenter": ("a saw", "chairs", "the workshop"),
    "doctor": ("a thermometer", "sick people well", "the clinic"),
    "farmer": ("a plough", "wheat", "the farm"),
    "fisher": ("a net", "a catch of fish", "the harbour"),
    "gardener": ("a spade", "flower beds", "the garden"),
    "painter": ("a brush", "pictures", "the studio"),
    "potter": ("a wheel", "bowls", "the kiln"),
    "tailor": ("a needle", "coats", "the shop"),
    "teacher": ("a blackboard", "lessons", "the school"),
}
# Each animal has a sound, a food and a number of legs.
ANIMALS = {
    "cat": ("meows", "milk", 4),
    "dog": ("barks", "bones", 4),
    "duck": ("quacks", "seeds", 2),
    "goat": ("bleats", "grass", 4),
    "hen": ("clucks", "corn", 2),
    "horse": ("neighs", "hay", 4),
    "parrot": ("squawks", "nuts", 2),
    "pig": ("grunts", "turnips", 4),
}
COLOURS = ["black", "blue", "brown", "green", "grey", "orange", "red", "white", "yellow"]
OBJECTS = ["ball", "bell", "book", "box", "coat", "cup", "drum", "hat", "kite", "lamp", "ring", "scarf"]
PET_NAMES = [
    "Biscuit",
    "Clover",
    "Dash",
    "Ember",
    "Fig",
    "Ginger",
    "Hazel",
    "Jet",
    "Koko",
    "Luna",
    "Misty",
    "Nimbus",
    "Pepper",
    "Rusty",
    "Sunny",
    "Tiggy",
]


@dataclass(frozen=True)
class Person:
    """What is true of one person, for ever."""

    name: str
    town: str
    job: str
    animal: str
    pet_name: str
    pet_colour: str
    object: str
    object_colour: str
    friend: str

    @property
    def pronoun(self) -> str:
        """As the subject of a sentence."""
        return "she" if self.name in WOMEN else "he"

    @property
    def possessive(self) -> str:
        """Before what is theirs."""
        return "her" if self.name in WOMEN else "his"

    @property
    def pronoun_object(self) -> str:
        """As an object."""
        return "her" if self.name in WOMEN else "him"

    @property
    def landscape(self) -> str:
        """Where their town lies."""
        return TOWNS[self.town]

    def facts(self) -> dict[str, str]:
        """Yield every fact that a question may ask for, those that take two steps included."""
        weather = LANDSCAPES[self.landscape]
        return {
            "town": self.town,
            "job": self.job,
            "animal": self.animal,
            "pet_name": self.pet_name,
            "pet_colour": self.pet_colour,
            "object": self.object,
            "object_colour": self.object_colour,
            "friend": self.friend,
            "tool": JOBS[self.job][0],
            "workplace": JOBS[self.job][2],
            "weather": weather["weather"],
            "sound": ANIMALS[self.animal][0],
        }


class World:
    """All people of a seed. Friends come in pairs."""

    def __init__(self, seed: int = 0) -> None:
        rng = random_source(seed, "world")
        order = rng.sample(NAMES, len(NAMES))
        friend = dict(zip(order[::2], order[1::2], strict=True))
        friend.update({b: a for a, b in friend.items()})
        self.seed = seed
        self.people = {
            name: Person(
                name=name,
                town=rng.choice(list(TOWNS)),
                job=rng.choice(list(JOBS)),
                animal=rng.choice(list(ANIMALS)),
                pet_name=rng.choice(PET_NAMES),
                pet_colour=rng.choice(COLOURS),
                object=rng.choice(OBJECTS),
                object_colour=rng.choice(COLOURS),
                friend=friend[name],
            )
            for name in NAMES
        }

    @staticmethod
    @lru_cache(maxsize=8)
    def of(seed: int) -> "World":
        """Return the world of a seed, made once."""
        return World(seed)
