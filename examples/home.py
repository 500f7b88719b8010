#!/usr/bin/env python3
"""Writes the chats of the tutorial: requests to a home, and the answers as JSON that a program reads.

    python3 examples/home.py examples/data     # home-train.jsonl and home-dev.jsonl, the same bytes every time

No request of the dev file, whatever its words, is in the train file: device, room and value differ.
"""

import json
import pathlib
import random
import sys

ROOMS = ["kitchen", "bedroom", "living room", "bathroom", "hall", "study", "garage", "nursery", "attic", "cellar"]
SWITCHES = {
    "lamp": [("on", ["Turn on the {room} lamp", "Switch the lamp in the {room} on", "It is dark in the {room}", "Light in the {room}"]),
             ("off", ["Turn off the {room} lamp", "Lights out in the {room}", "Nobody needs the lamp in the {room} now"])],
    "fan": [("on", ["Start the fan in the {room}", "Get some air moving in the {room}", "{Room} fan on"]),
            ("off", ["Stop the {room} fan", "The fan in the {room} is too loud", "{Room} fan off"])],
    "blinds": [("open", ["Open the blinds in the {room}", "Let the sun into the {room}", "Blinds up in the {room}"]),
               ("close", ["Close the {room} blinds", "Too much sun in the {room}", "Blinds down in the {room}"])],
}
LEVELS = {
    "lamp": (range(10, 100, 10), ["Dim the {room} lamp to {value} percent", "{Room} lamp at {value} %", "Set the lamp in the {room} to {value} percent"]),
    "heating": (range(16, 25), ["Heat the {room} to {value} degrees", "Make it {value} degrees in the {room}", "{Room} heating at {value}"]),
    "radio": (range(1, 11), ["Radio in the {room} at volume {value}", "Set the {room} radio to {value}", "Play the radio in the {room}, volume {value}"]),
}
POLITE = ["{}", "{}.", "{}, please.", "Please: {}.", "Could you help? {}.", "{}. Thanks!"]
AGAIN = ["The same in the {room}, please.", "And in the {room}.", "Now the {room}."]


def commands():
    """Every command with the sentences that ask for it."""
    for room in ROOMS:
        for device, actions in SWITCHES.items():
            for action, sentences in actions:
                yield {"device": device, "room": room, "action": action}, sentences
        for device, (values, sentences) in LEVELS.items():
            for value in values:
                yield {"device": device, "room": room, "action": "set", "value": value}, sentences


def turn(command, words):
    return [{"role": "user", "content": words}, {"role": "assistant", "content": json.dumps(command)}]


def chats(rng, pool, count):
    for number in range(count):
        command, sentences = rng.choice(pool)
        named = {"room": command["room"], "Room": command["room"].capitalize(), "value": command.get("value")}
        messages = turn(command, rng.choice(POLITE).format(rng.choice(sentences).format(**named)))
        same = [c for c, _ in pool if {**c, "room": None} == {**command, "room": None} and c != command]
        if number % 4 == 3 and same:
            other = rng.choice(same)
            messages += turn(other, rng.choice(AGAIN).format(room=other["room"]))
        yield {"messages": messages}


def main(folder):
    rng = random.Random(20261128)
    pool = list(commands())
    rng.shuffle(pool)
    cut = len(pool) // 5
    for name, part, count in (("home-train", pool[cut:], 600), ("home-dev", pool[:cut], 60)):
        lines = [json.dumps(chat) + "\n" for chat in chats(rng, part, count)]
        pathlib.Path(folder, f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
