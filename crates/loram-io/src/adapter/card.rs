//! The model card, `README.md`: what the adapter is and how it is loaded.

use super::in_memory::Adapter;
use super::recipe::AdapterForm;
use crate::config::PoolingMode;
use serde_json::json;
use std::fmt::Write;

/// The text of the card.
pub(super) fn render(adapter: &Adapter) -> String {
    let base = adapter.base_model.as_deref().unwrap_or("");
    let pooling = adapter.recipe.as_ref().and_then(|r| r.pooling);
    let (pipeline, auto) = match adapter.task_type.as_deref() {
        Some("TOKEN_CLS") if pooling.is_some() => ("text-classification", "AutoModelForTokenClassification"),
        Some("SEQ_CLS") => ("text-classification", "AutoModelForSequenceClassification"),
        Some("TOKEN_CLS") => ("token-classification", "AutoModelForTokenClassification"),
        _ => ("text-generation", "AutoModelForCausalLM"),
    };
    // without it, the class has as many labels as the base model's configuration names
    let outputs = adapter.recipe.as_ref().and_then(|r| r.labels.as_ref()).map_or(1, Vec::len);
    let labels = match (pooling, adapter.task_type.as_deref()) {
        (None, _) => String::new(),
        (Some(mode), Some("SEQ_CLS")) => format!(", num_labels={outputs}, classifier_pooling=\"{}\"", mode.as_str()),
        (Some(_), _) => format!(", num_labels={outputs}"),
    };
    let native = adapter.form() == AdapterForm::Native;
    // a JSON string is a YAML string too, whatever characters it holds
    let tag = json!(format!("base_model:adapter:{base}"));
    let mut s = format!(
        "---\nbase_model: {}\nlibrary_name: peft\npipeline_tag: {pipeline}\ntags:\n- {tag}\n- lora\n- loram\n---\n\n\
         # LoRA adapter\n\n",
        json!(base)
    );
    let ranks: std::collections::BTreeSet<usize> = adapter.layers.values().map(|l| l.r).collect();
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    let _ = writeln!(s, "- Base model: `{base}`");
    let _ = writeln!(s, "- Adapted layers: {}, rank {}", adapter.layers.len(), ranks.join(", "));
    if !adapter.tokens.is_empty() {
        let rows: Vec<String> = adapter.tokens.iter().map(|(path, t)| format!("{} of `{path}`", t.shape[0])).collect();
        let _ = writeln!(s, "- Trained rows: {}", rows.join(", "));
    }
    if !adapter.saved.is_empty() {
        let names: Vec<&str> = adapter.saved.keys().map(String::as_str).collect();
        let _ = writeln!(s, "- Fully trained tensors: `{}`", names.join("`, `"));
    }
    if let Some(recipe) = &adapter.recipe {
        let _ = writeln!(s, "- Initialisation: `{}`, seed {} (`loram.json`)", recipe.scheme, recipe.seed);
    }
    s.push('\n');
    if native {
        s.push_str(
            "**This adapter is in native form and does not fit the base model as it is.** Its factors were not initialised with \
             B·A = 0: it belongs to the base with the initial product subtracted, which `loram` recomputes from \
             `loram.json`. PEFT refuses to load it (its `init_lora_weights` is none that PEFT knows); programs that do not \
             look at that field would compute wrong results. For all of them make a plain adapter of it first, with \
             `loram convert`.\n",
        );
    } else {
        let _ = write!(
            s,
            "It is a plain LoRA adapter and loads onto the unchanged base model:\n\n```python\n\
             from peft import PeftModel\nfrom transformers import {auto}\n\n\
             model = {auto}.from_pretrained({}{labels})\nmodel = PeftModel.from_pretrained(model, \"THIS_FOLDER\")\n```\n",
            json!(base)
        );
        if let Some(mode) = pooling.filter(|_| auto == "AutoModelForTokenClassification") {
            let _ = write!(s, "\n{}", pooled_logits(mode));
        }
    }
    let _ =
        write!(s, "\n### Framework versions\n\n- loram {}\n- PEFT 0.21.0 (file layout)\n", env!("CARGO_PKG_VERSION"));
    s
}

/// The text on an adapter for sequences whose pooling no class of transformers has.
fn pooled_logits(mode: PoolingMode) -> String {
    let (what, how) = match mode {
        PoolingMode::Mean => ("the mean over all tokens", "(logits * mask).sum(1) / mask.sum(1)"),
        PoolingMode::Cls => ("that of the first token", "logits[:, 0]"),
        PoolingMode::Last => {
            ("that of the last token", "logits[range(len(logits)), batch[\"attention_mask\"].sum(1) - 1]")
        }
    };
    format!(
        "Its head reads {what}, which no class for sequence classification does. The class above returns logits for each token; those \
         of the sequence are {what} (pad on the right):\n\n```python\n\
         logits = model(**batch).logits\nmask = batch[\"attention_mask\"][..., None]\nlogits = {how}\n```\n"
    )
}
