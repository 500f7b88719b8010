#!/usr/bin/env python3
"""Pairs of sentences with a sentence-embedding model's own similarity as their score, to train on before the few pairs
that people scored (Augmented SBERT's silver data, arXiv 2010.08240; here the teacher is the model itself).

    python3 examples/similarity_pairs.py sentence-transformers/all-MiniLM-L6-v2 data/stsb/train.jsonl data/stsb/similar.jsonl

Every sentence of the file is paired with two of its eight nearest neighbours and one of its next three hundred; pairs
that the file scores itself are left out. The score is the cosine of the mean-pooled embeddings, on the scale of the file
by the cubic that fits the file's own pairs best. Needs numpy, torch and transformers."""
import argparse, json, math, os, random
import numpy as np, torch
from transformers import AutoModel, AutoTokenizer


def embed(folder, sentences):
    """Unit vectors (sentences, width): means over the tokens of each sentence."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = np.empty((len(sentences), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    for at in range(0, len(order), 64):
        some = order[at : at + 64]
        batch = tokenizer([sentences[i] for i in some], padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.no_grad():
            hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        vectors[some] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    return vectors


def read(parser, path):
    """Records with their scores as numbers."""
    rows = []
    try:
        with open(path) as f:
            for number, line in enumerate(f, 1):
                row = json.loads(line)
                rows.append({"text": row["text"], "text_pair": row["text_pair"], "label": float(row["label"])})
                if not math.isfinite(rows[-1]["label"]):
                    raise ValueError(f"the label is {row['label']}")
    except OSError as e:
        parser.error(str(e))
    except (ValueError, TypeError, KeyError) as e:
        parser.error(f"{path}:{number}: expected text, text_pair and a number as label: {e!r}")
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="folder or hub id of the sentence-embedding model")
    p.add_argument("data", help="lines with text, text_pair and a number as label")
    p.add_argument("out", help="lines of the same form")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    rows = read(p, args.data)
    sentences = sorted({s for r in rows for s in (r["text"], r["text_pair"])})
    if len(sentences) < 10:
        p.error(f"{args.data}: {len(sentences)} different sentence(s), expected ten or more")
    number = {s: i for i, s in enumerate(sentences)}
    vectors = embed(args.model, sentences)
    scored = [(number[r["text"]], number[r["text_pair"]]) for r in rows]
    labels = np.array([r["label"] for r in rows], dtype=np.float64)
    cosines = np.array([vectors[i] @ vectors[j] for i, j in scored])
    cubic = np.polyfit(cosines, labels, 3)
    rng, taken, pairs = random.Random(args.seed), {frozenset(pair) for pair in scored}, []
    for i in range(len(sentences)):
        cosine = vectors @ vectors[i]
        others = [j for j in np.argsort(-cosine)[:310].tolist() if j != i]
        for j in rng.sample(others[:8], 2) + rng.sample(others[8:309] or others, 1):
            if frozenset((i, j)) not in taken:
                taken.add(frozenset((i, j)))
                score = float(np.clip(np.polyval(cubic, cosine[j]), labels.min(), labels.max()))
                pairs.append({"text": sentences[i], "text_pair": sentences[j], "label": round(score, 3)})
    rng.shuffle(pairs)
    with open(args.out + ".tmp", "w") as f:
        f.writelines(json.dumps(pair) + "\n" for pair in pairs)
    os.replace(args.out + ".tmp", args.out)
    print(f"{args.out}: {len(pairs)} pairs of {len(sentences)} sentences; on the pairs of {args.data} cosine and label "
          f"correlate with {np.corrcoef(cosines, labels)[0, 1]:.3f}")


if __name__ == "__main__":
    main()
