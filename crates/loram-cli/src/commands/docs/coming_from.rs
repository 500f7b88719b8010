//! `docs/coming-from.md`: commands and keys of other trainers, and what they are called here.

use super::markdown::cell;
use loram_train::config::{Here, foreign_keys, key};
use std::fmt::Write;

/// Another trainer.
struct Program {
    /// Its name in the table of keys.
    name: &'static str,
    heading: &'static str,
    /// Commands there and here.
    commands: &'static [(&'static str, &'static str)],
    /// Differences behind names that are alike.
    notes: &'static [&'static str],
}

const PROGRAMS: [Program; 4] = [
    Program {
        name: "TRL or transformers",
        heading: "TRL, PEFT and Unsloth",
        commands: &[
            (
                "`trl sft --model_name_or_path M --dataset_name D --use_peft --lora_r 16`",
                "`loram train --model M --data D`",
            ),
            (
                "`SFTTrainer(model, train_dataset, peft_config=LoraConfig(…), args=SFTConfig(…))`",
                "the same keys in a YAML file: `loram train config.yaml`",
            ),
            (
                "`trl dpo --model_name_or_path M --dataset_name D --use_peft`",
                "`loram train --model M --data D --task dpo` ([preference.md](preference.md))",
            ),
            (
                "`DPOTrainer`, `KTOTrainer`, `ORPOTrainer`, `CPOTrainer` with `loss_type=\"simpo\"`",
                "`task: dpo`, `kto`, `orpo`, `cpo`, `simpo` with the same keys",
            ),
            ("`load_dataset(\"owner/name\", \"config\", split=\"train\")`", "`--data owner/name:config:train`"),
            (
                "`get_peft_model(model, LoraConfig(init_lora_weights=\"pissa\"))`",
                "`loram init M -o DIR --init pissa`, or the [Python package](../python/README.md)",
            ),
            (
                "`BitsAndBytesConfig(load_in_4bit=True)`, `FastLanguageModel.from_pretrained(M, load_in_4bit=True)`",
                "`--load-in-4bit`, or a 4-bit checkpoint as `--model` ([quantised.md](quantised.md))",
            ),
            ("`trainer.train(resume_from_checkpoint=True)`", "the same command again"),
            ("`PeftModel.from_pretrained(model, A).merge_and_unload()`", "`loram merge --adapter A --output DIR`"),
            ("`model.save_pretrained_gguf(…)`", "`loram export A -o adapter.gguf` ([gguf.md](gguf.md))"),
        ],
        notes: &[
            "Adapters load in PEFT as they are, and adapters of PEFT load here.",
            "The loss counts completions and the assistant's turns only; `completion_only_loss: false` counts all.",
            "The learning rate is found on the data when none is given, in place of a default of 2e-4 or 5e-5.",
        ],
    },
    Program {
        name: "axolotl",
        heading: "axolotl",
        commands: &[
            ("`axolotl preprocess config.yml`", "`loram train config.yaml --dry-run`"),
            ("`axolotl train config.yml`", "`loram train config.yaml`"),
            ("`axolotl inference config.yml --lora-model-dir A`", "`loram generate --adapter A --chat`"),
            ("`axolotl merge-lora config.yml`", "`loram merge --adapter A --output DIR`"),
        ],
        notes: &[
            "`datasets` is a list of entries with `path` and `type` there, and a list of paths, maybe with weights, here: the format is seen in the fields.",
            "`train_on_inputs: true` is `completion_only_loss: false`.",
            "`evals_per_epoch` and `saves_per_epoch` are counts there; `eval_steps` and `save_steps` are distances in steps.",
        ],
    },
    Program {
        name: "LLaMA-Factory",
        heading: "LLaMA-Factory",
        commands: &[
            ("`llamafactory-cli train config.yaml`", "`loram train config.yaml`"),
            ("`llamafactory-cli chat config.yaml`", "`loram generate --adapter A --chat`"),
            ("`llamafactory-cli export config.yaml`", "`loram merge --adapter A --output DIR`"),
        ],
        notes: &[
            "`dataset` names an entry of `dataset_info.json` there, and a file or a data set of the hub here; its `columns` are the key `columns`.",
            "`template` is not needed: the model's own chat template is used.",
        ],
    },
    Program {
        name: "mlx-lm",
        heading: "mlx-lm",
        commands: &[
            (
                "`mlx_lm.lora --model M --train --data DIR --iters 600`",
                "`loram train --model M --data DIR/train.jsonl --eval-data DIR/valid.jsonl --max-steps 600`",
            ),
            (
                "`mlx_lm.generate --model M --adapter-path A --prompt TEXT`",
                "`loram generate --adapter A --prompt TEXT`",
            ),
            ("`mlx_lm.fuse --model M --adapter-path A`", "`loram merge --adapter A --output DIR`"),
        ],
        notes: &[
            "`num_layers` counts blocks from the end; `layers_to_transform` lists their numbers.",
            "`scale` there is `lora_alpha / r` here.",
        ],
    },
];

/// The page.
pub(super) fn page() -> String {
    let mut out = String::from(
        "# Coming from another trainer\n\n\
         *The tables of keys are generated from the program's own (`loram docs coming-from`).*\n\n\
         Keys that are not listed have the same name and meaning here if loram has them ([configuration.md](configuration.md)); \
         `lora_r`, `lora_dropout`, `learning_rate`, `num_epochs` and many others are understood as they are. A key that loram does not know is an \
         error that names its replacement, so the quickest way is to try the file: `loram train config.yaml --dry-run` prints every \
         value and where it came from, and the first example with its loss mask.\n",
    );
    for program in &PROGRAMS {
        let _ = write!(out, "\n## {}\n\n| there | here |\n|---|---|\n", program.heading);
        for (there, here) in program.commands {
            let _ = writeln!(out, "| {} | {} |", cell(there), cell(here));
        }
        out += "\n";
        program.notes.iter().for_each(|note| out += &format!("- {note}\n"));
        keys(&mut out, program.name);
    }
    out += "\n## Nested configurations\n\nA configuration is one flat list of keys. The entries of these sections move to the top: ";
    let sections = foreign_keys().iter().filter(|f| PROGRAMS.iter().all(|p| p.name != f.of));
    out += &sections.map(|f| format!("`{}`", f.key)).collect::<Vec<_>>().join(", ");
    out + ".\n"
}

fn keys(out: &mut String, program: &str) {
    *out += "\n| key | here |\n|---|---|\n";
    for foreign in foreign_keys().iter().filter(|f| f.of == program) {
        let here = match foreign.here {
            Here::Key(own) => {
                let help = key(own).map_or(String::new(), |k| k.help.clone());
                let first = help.split(". ").next().unwrap_or(&help).trim_end_matches('.');
                format!("`{own}`: {first}")
            }
            Here::Nothing(why) => format!("nothing: {why}"),
        };
        let _ = writeln!(out, "| `{}` | {} |", foreign.key, cell(&here));
    }
}
