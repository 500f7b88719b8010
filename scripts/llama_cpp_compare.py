#!/usr/bin/env python3
"""Compares loram with llama.cpp on a GGUF file: mean loss of texts with the model, with an adapter beside it, and with the merged model.

    llama_cpp_compare.py PEER LORAM MODEL.gguf ADAPTER TEXTS.jsonl

PEER is a folder with llama.cpp for Node (`npm i -E node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1 --omit=optional
--ignore-scripts`), LORAM the program, TEXTS lines of {"text": …} that end with the
text of the model's end token, such as <|im_end|>. llama.cpp rounds activations to 8 bits beside quantised weights, so that
losses agree to about a hundredth; the changes that the adapter makes agree much better."""
import json
import os
import subprocess
import sys
import tempfile

SCRIPT = """
import fs from "fs";
import {getLlama} from "node-llama-cpp";
const [modelPath, lora, texts] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath});
const context = await model.createContext({contextSize: 512, ...(lora ? {lora: {adapters: [{filePath: lora, scale: 1}]}} : {})});
const sequence = context.getSequence();
let [sum, count] = [0, 0];
for (const line of fs.readFileSync(texts, "utf8").split("\\n").filter(l => l)) {
    const tokens = Array.from(model.tokenize(JSON.parse(line).text, true)).slice(0, 512);
    await sequence.clearHistory();
    const found = await sequence.controlledEvaluate(tokens.map(t => [t, {generateNext: {probabilities: true}}]));
    for (let i = 0; i + 1 < tokens.length; i++) {
        sum -= Math.log(found[i].next.probabilities.get(tokens[i + 1]));
        count++;
    }
}
fs.writeFileSync(1, JSON.stringify({loss: sum / count, tokens: count}));
process.exit(0);
"""


def main(peer, loram, model, adapter, texts):
    script = os.path.join(peer, "losses.mjs")
    open(script, "w").write(SCRIPT)

    def theirs(model, lora=""):
        done = subprocess.run(["node", script, model, lora, texts], stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def ours(*args):
        done = subprocess.run([loram, "eval", "--data", texts, "--json", "--max-length", "512", *args], stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    with tempfile.TemporaryDirectory() as room:
        lora, merged = os.path.join(room, "lora"), os.path.join(room, "merged")
        for out, more in ((lora, []), (merged, ["--merged"])):
            subprocess.run([loram, "export", adapter, "--model", model, "-o", out, *more, "--quiet"], check=True)
        rows = [("base", ours("--model", model), theirs(model)),
                ("base + adapter", ours("--model", model, "--adapter", adapter), theirs(model, os.path.join(lora, "adapter.gguf"))),
                ("merged", ours("--model", os.path.join(merged, "model.gguf")), theirs(os.path.join(merged, "model.gguf")))]
        print(f"{'':15} {'loram':>9} {'llama.cpp':>9} {'tokens':>8} {'tokens':>8}")
        for name, a, b in rows:
            print(f"{name:15} {a['loss']:9.5f} {b['loss']:9.5f} {a.get('tokens', 0):8} {b['tokens']:8}")
        (_, a, b), (_, c, d) = rows[0], rows[1]
        print(f"change by the adapter: {c['loss'] - a['loss']:+.5f} and {d['loss'] - b['loss']:+.5f}")


if __name__ == "__main__":
    main(*sys.argv[1:6])
