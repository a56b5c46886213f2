"""A typed function: the framework turns JSON into a Person, and a Greeting into JSON."""

import dataclasses

import functions_framework


@dataclasses.dataclass
class Person:
    """Whom to greet."""

    name: str

    @classmethod
    def from_dict(cls, fields):
        return cls(fields["name"])


@dataclasses.dataclass
class Greeting:
    """What to say."""

    greeting: str

    def to_dict(self):
        return dataclasses.asdict(self)


@functions_framework.typed
def typed(person: Person):
    """Greets a person."""
    return Greeting(f"Hello {person.name}!")
