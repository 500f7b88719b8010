//! Architectures that are not supported: the nearest one that is, and how they differ.

const EXPERTS: &str = "its MLPs are mixtures of experts";
const IMAGES: &str = "it reads images, and its text tower has a rotary embedding of its own";

/// `model_type`, the nearest family, and the difference.
const NEAREST: [(&str, &str, &str); 50] = [
    ("apertus", "qwen3", "its MLP has no gate and the activation xIELU"),
    ("arcee", "llama", "its MLP has no gate and the activation relu²"),
    ("cohere", "llama", "attention and MLP are beside each other, with layer norms without bias"),
    ("cohere2", "llama", "attention and MLP are beside each other, with layer norms without bias"),
    ("deepseek_v2", "qwen3_moe", "latent attention, and experts that all tokens share"),
    ("deepseek_v3", "qwen3_moe", "latent attention, and experts that all tokens share"),
    ("deberta", "deberta-v2", "a fused projection, and biases of queries and values alone"),
    ("ernie4_5", "llama", "it rotates neighbouring pairs of whole heads"),
    ("electra", "bert", "its embeddings may be narrower, and its pooling differs"),
    ("exaone", "llama", "its modules have the names of GPT-2"),
    ("exaone_moe", "exaone4", EXPERTS),
    ("falcon", "llama", "attention and MLP are beside each other, with layer norms and a fused projection by heads"),
    ("falcon_h1", "llama", "state space layers beside the attention"),
    ("gemma", "gemma2", "it has no norms after attention and MLP, no windows and no soft caps"),
    ("gemma3n", "gemma3_text", "inputs of their own in every block, and alternating updates"),
    ("gemma4", "gemma3", "inputs of their own in every block, and keys and values that blocks share"),
    ("gemma4_text", "gemma3_text", "inputs of their own in every block, and keys and values that blocks share"),
    ("glm", "glm4", "it has no norms after attention and MLP"),
    ("glm4_moe", "glm4", EXPERTS),
    ("gpt_bigcode", "gpt2", "all heads share one key, and weights are not stored transposed"),
    ("gpt_neo", "gpt2", "windows in some blocks, scores without a factor, and weights that are not stored transposed"),
    ("gpt_neox", "llama", "layer norms, attention and MLP beside each other, and a fused projection by heads"),
    ("granitemoe", "granite", EXPERTS),
    ("granitemoeshared", "granite", EXPERTS),
    ("helium", "llama", "it rotates neighbouring pairs of whole heads"),
    ("hunyuan_v1_dense", "qwen3", "its norms of heads come after the rotary embedding"),
    ("internlm2", "llama", "a fused projection by groups of heads, under other names"),
    ("jamba", "mistral", "state space layers and mixtures of experts"),
    ("lfm2_moe", "lfm2", EXPERTS),
    ("llama4", "llama", "mixtures of experts, and attention in chunks"),
    ("llama4_text", "llama", "mixtures of experts, and attention in chunks"),
    ("minicpm3", "minicpm", "latent attention"),
    ("ministral", "mistral", "windows in some blocks alone"),
    ("mllama", "llama", "it reads images through attention across"),
    ("mpt", "llama", "layer norms, and biases of the scores in place of positions"),
    ("nemotron", "llama", "layer norms plus one, and an MLP without gate"),
    ("olmo", "llama", "layer norms without weights"),
    ("olmoe", "qwen3_moe", "its norms of queries and keys are over all heads together"),
    ("opt", "gpt2", "positions that begin at 2, and other names"),
    ("phi", "phi3", "layer norms, and attention and MLP beside each other"),
    ("phimoe", "phi3", EXPERTS),
    ("qwen2_5_vl", "qwen2", IMAGES),
    ("qwen2_moe", "qwen3_moe", "an expert that all tokens share, and no norms of heads"),
    ("qwen2_vl", "qwen2", IMAGES),
    ("qwen3_5", "qwen3", "gated delta rules in place of attention in most blocks"),
    ("qwen3_next", "qwen3", "gated delta rules in place of attention in most blocks, and mixtures of experts"),
    ("qwen3_vl", "qwen3", IMAGES),
    ("stablelm", "llama", "layer norms, and a rotary embedding of a part of each head"),
    ("starcoder2", "llama", "layer norms, and an MLP without gate"),
    ("t5", "bert", "an encoder and a decoder, with biases of the scores in place of positions"),
];

/// The nearest supported `model_type`, and the difference; `None` for an architecture that is not listed.
pub(super) fn nearest(model_type: &str) -> Option<(&'static str, &'static str)> {
    NEAREST.iter().find(|n| n.0 == model_type).map(|n| (n.1, n.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::supported;

    #[test]
    fn the_nearest_is_supported_and_the_others_are_not() {
        let all: Vec<&str> = supported().collect();
        for (i, (model_type, nearest, _)) in NEAREST.iter().enumerate() {
            assert!(all.contains(nearest) && !all.contains(model_type), "{model_type} is near {nearest}");
            assert!(NEAREST[..i].iter().all(|n| n.0 != *model_type), "{model_type} twice");
        }
    }
}
