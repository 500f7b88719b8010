"""tokenizers.json: what transformers' tokenizers make of a few texts.

make_tokenizers.py SHARED_FOLDER MINILM_MODEL_FOLDER, from the repository root."""
import json, os, sys
from transformers import AutoTokenizer

TEXTS = ["Once upon a time, there was a café 😀.", "name : The Mill | food : Italian =>",
         " leading  spaces\nand\ttabs 12345", "", "Hello<|endoftext|>world </s> x"]
PAIR = ("first text", "and the second one, longer")
out = []
for name, path in [("stories260K", sys.argv[1] + "/models/stories260K"), ("tiny-llama-en", "assets/tiny-llama-en"),
                   ("minilm", sys.argv[2])]:
    t = AutoTokenizer.from_pretrained(path)
    for x in TEXTS:
        ids = t(x)["input_ids"]
        out.append(dict(model=name, text=x, ids=ids, plain=t(x, add_special_tokens=False)["input_ids"],
                        decoded=t.decode(ids, skip_special_tokens=True)))
    p = t(*PAIR)
    out.append(dict(model=name, text=PAIR[0], pair=PAIR[1], ids=p["input_ids"], types=p.get("token_type_ids", [])))
json.dump(out, open("crates/loram-io/tests/data/tokenizers.json", "w"), indent=0, ensure_ascii=False)
