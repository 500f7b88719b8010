#!/usr/bin/env python3
"""Writes runs/wikisql.jsonl, prompts and completions, from the texts of ../shared/data/wikisql.

    python3 docs/results/grids/wikisql.py
"""

import json
import pathlib

SOURCE = pathlib.Path("../shared/data/wikisql")
out = pathlib.Path("runs/wikisql.jsonl")
records = []
for name in ("train.jsonl", "valid.jsonl"):
    for line in (SOURCE / name).read_text().splitlines():
        text = json.loads(line)["text"]
        before, mark, query = text.partition("\nA: ")
        if not mark:
            raise SystemExit(f"{name}: no line that begins with `A: ` in {text!r}")
        records.append({"prompt": before + "\nA:", "completion": " " + query.strip()})
out.parent.mkdir(exist_ok=True)
out.write_text("".join(json.dumps(r) + "\n" for r in records))
print(f"{out}: {len(records)} records")
