#!/usr/bin/env python3
"""Makes preference pairs of worked answers (`prompt` and `completion` in JSON Lines, such as GSM8K): the answer is preferred to the same
answer with other numbers.

    python3 bench/preference/pairs.py train.jsonl pairs.jsonl --n 800

Each number of the rejected answer is drawn anew, with the same number of digits; the seed is that of the line."""
import argparse, json, random, re

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("out")
parser.add_argument("--n", type=int, default=800)
args = parser.parse_args()


def other(match, rng):
    digits = match.group()
    while True:
        drawn = "".join(rng.choice("123456789" if i == 0 else "0123456789") for i in range(len(digits)))
        if drawn != digits:
            return drawn


with open(args.source) as source, open(args.out, "w") as out:
    for i, line in zip(range(args.n), source):
        record, rng = json.loads(line), random.Random(i)
        chosen = re.sub(r"<<.*?>>", "", record["completion"])
        pair = {"prompt": record["prompt"], "chosen": chosen, "rejected": re.sub(r"\d+", lambda m: other(m, rng), chosen)}
        out.write(json.dumps(pair, ensure_ascii=False) + "\n")
