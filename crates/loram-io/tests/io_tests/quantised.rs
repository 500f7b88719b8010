//! Quantised safetensors: decoded and quantised blocks against bitsandbytes (`fixtures/make_quantised.py`), and every rule that the tables of a
//! weight can break.

use loram_core::{
    BlockScales, FourBit, FourBitType, SharedBytes, ValueType, WeightFormat, dynamic_map, nested_scales, quantise_4bit,
};
use loram_io::checkpoint::{SafetensorsWriter, TensorSpec, pt_metadata};
use loram_io::testing::repo_root;
use loram_io::{Checkpoint, DType, FourBitName, LoadIn4Bit, ModelConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    repo_root().join("fixtures/models").join(name)
}

fn blocks() -> Checkpoint {
    Checkpoint::open_file(repo_root().join("fixtures/ref/four-bit.safetensors")).unwrap()
}

fn bytes(file: &Checkpoint, name: &str) -> Vec<u8> {
    file.tensor(name).unwrap().bytes().to_vec()
}

fn floats(file: &Checkpoint, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().to_f32().unwrap()
}

fn shared(bytes: Vec<u8>) -> SharedBytes {
    Arc::new(bytes)
}

fn same_bits(found: &[f32], want: &[f32], what: &str) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        // bitsandbytes' FP4 has −0 on some paths
        let equal = found.to_bits() == want.to_bits() || *found == 0.0 && *want == 0.0;
        assert!(equal, "{what}, value {i}: {found} instead of {want}");
    }
}

const KINDS: [(&str, FourBitType); 2] = [("nf4", FourBitType::Nf4), ("fp4", FourBitType::Fp4)];
const TYPES: [(&str, ValueType); 3] = [("f32", ValueType::F32), ("bf16", ValueType::BF16), ("f16", ValueType::F16)];

#[test]
fn blocks_are_read_as_bitsandbytes_reads_them() {
    let file = blocks();
    for (kind_name, kind) in KINDS {
        for (type_name, values) in TYPES {
            for nested in [false, true] {
                let own = format!("{kind_name}.{type_name}{}", if nested { ".nested" } else { "" });
                let absmax = shared(bytes(&file, &format!("{own}.absmax")));
                let scales = match nested {
                    false => BlockScales::F32(absmax),
                    true => BlockScales::Nested {
                        codes: absmax,
                        scales: shared(bytes(&file, &format!("{own}.scales"))),
                        block: 256,
                        map: Box::new(floats(&file, "map").try_into().unwrap()),
                        offset: floats(&file, &format!("{own}.offset"))[0],
                    },
                };
                let format = FourBit::new(kind, 64, values, scales);
                let (codes, want) = (bytes(&file, &format!("{own}.codes")), floats(&file, &format!("{own}.values")));
                let mut found = vec![f32::NAN; want.len()];
                format.read(0, &codes, &mut found);
                same_bits(&found, &want, &own);
                // from anywhere inside
                let mut part = vec![f32::NAN; 300];
                format.read(1002, &codes[501..651], &mut part);
                same_bits(&part, &want[1002..1302], &own);
            }
        }
    }
    for size in [32, 256] {
        let own = format!("size-{size}");
        let scales = BlockScales::F32(shared(bytes(&file, &format!("{own}.absmax"))));
        let format = FourBit::new(FourBitType::Nf4, size, ValueType::F32, scales);
        let mut found = vec![f32::NAN; 1000];
        format.read(0, &bytes(&file, &format!("{own}.codes")), &mut found);
        same_bits(&found, &floats(&file, &format!("{own}.values")), &own);
    }
}

#[test]
fn weights_are_quantised_to_the_bits_of_bitsandbytes() {
    let file = blocks();
    assert_eq!(dynamic_map()[..], floats(&file, "map")[..]);
    for (kind_name, kind) in KINDS {
        for (type_name, _) in TYPES {
            let own = format!("{kind_name}.{type_name}");
            let weight = floats(&file, &format!("{own}.weight"));
            let mut codes = vec![0; weight.len() / 2];
            let mut scales = vec![f32::NAN; weight.len().div_ceil(64)];
            quantise_4bit(kind, &weight, &mut codes, &mut scales);
            assert_eq!(scales, floats(&file, &format!("{own}.absmax")), "{own}");
            assert_eq!(codes, bytes(&file, &format!("{own}.codes")), "{own}");
            // scales, with the mean that torch computes in f32 in an order of its own
            let offset = floats(&file, &format!("{own}.nested.offset"))[0];
            let nested = nested_scales(&scales, Some(offset));
            assert_eq!(nested.codes, bytes(&file, &format!("{own}.nested.absmax")), "{own}");
            assert_eq!(nested.scales, floats(&file, &format!("{own}.nested.scales")), "{own}");
            let mean = nested_scales(&scales, None).offset;
            assert!((mean - offset).abs() <= 2e-7 * offset, "{own}: {mean} {offset}");
        }
    }
    let mut code = [0];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scale = [0.0];
        quantise_4bit(FourBitType::Nf4, &[1.0, bad], &mut code, &mut scale);
        assert!(!scale[0].is_finite(), "{bad}");
    }
}

/// Type, shape and bytes of a tensor.
type Stored = (DType, Vec<usize>, Vec<u8>);

/// The tensors of a folder as they are stored, by name.
fn stored(dir: &Path) -> BTreeMap<String, Stored> {
    let file = Checkpoint::open_file(dir.join("model.safetensors")).unwrap();
    let tensor = |name: &str| {
        let t = file.tensor(name).unwrap();
        (name.to_string(), (t.dtype(), t.shape().to_vec(), t.bytes().to_vec()))
    };
    file.names().map(tensor).collect()
}

fn write(dir: &Path, tensors: &BTreeMap<String, Stored>) {
    let specs = tensors.iter().map(|(name, (dtype, shape, _))| TensorSpec::new(name, *dtype, shape)).collect();
    let mut writer = SafetensorsWriter::create(dir.join("model.safetensors"), &pt_metadata(), specs).unwrap();
    tensors.iter().for_each(|(name, t)| writer.put(name, &t.2).unwrap());
    writer.finish().unwrap();
}

const Q: &str = "model.layers.0.self_attn.q_proj";

#[test]
fn a_folder_of_transformers_is_read_as_it_is() {
    let dir = fixture("llama-nf4");
    let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let q = ckpt.tensor(&format!("{Q}.weight")).unwrap();
    assert_eq!((q.dtype(), q.shape(), q.bytes().len()), (DType::Nf4, &[64, 64][..], 64 * 64 / 2));
    assert!(ckpt.names().all(|name| !name.contains("absmax") && !name.contains("quant")), "tables are no tensors");
    assert_eq!(ckpt.tensor("lm_head.weight").unwrap().dtype(), DType::BF16);
    assert!(ckpt.quantised().is_some() && ckpt.loaded_in_4bit().is_none());
    assert_eq!(config.family(), "llama");
    let all: u64 = stored(&dir).values().map(|t| t.2.len() as u64).sum();
    // the map of 8-bit codes and 16 levels are counted once for each weight or not at all
    assert!(ckpt.total_bytes().abs_diff(all) < all / 10, "{} {all}", ckpt.total_bytes());
}

/// The error of opening a copy of a fixture that was changed.
fn error(name: &str, change: impl FnOnce(&mut BTreeMap<String, Stored>, &mut Value)) -> String {
    let (from, dir) = (fixture(name), tempfile::tempdir().unwrap());
    let mut tensors = stored(&from);
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    change(&mut tensors, &mut config);
    write(dir.path(), &tensors);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let opened = Checkpoint::open(dir.path()).map(drop).and_then(|()| ModelConfig::load(dir.path()).map(drop));
    opened.unwrap_err().to_string()
}

#[test]
fn every_damage_of_a_4_bit_weight_has_its_error() {
    let state = format!("{Q}.weight.quant_state.bitsandbytes__nf4");
    let of_state = |change: &dyn Fn(&mut Value)| {
        error("llama-nf4", |t, _| {
            let entry = t.get_mut(&state).unwrap();
            let mut json: Value = serde_json::from_slice(&entry.2).unwrap();
            change(&mut json);
            entry.2 = json.to_string().into_bytes();
            entry.1 = vec![entry.2.len()];
        })
    };
    let beside = |table: &str| format!("{Q}.weight.{table}");
    let without = |table: &str| {
        error("llama-nf4", |t, _| {
            t.remove(&beside(table)).unwrap();
        })
    };
    let shorter = |table: &str, size: usize| {
        error("llama-nf4", |t, _| {
            let entry = t.get_mut(&beside(table)).unwrap();
            entry.2.truncate(entry.2.len() - size);
            entry.1 = vec![entry.2.len() / size];
        })
    };
    let cases = [
        (of_state(&|s| s["quant_type"] = json!("fp4")), "quant_type is `fp4` in the state of NF4"),
        (of_state(&|s| s["dtype"] = json!("int8")), "dtype `int8` is not float32"),
        (of_state(&|s| s["blocksize"] = json!(63)), "blocksize 63 is none of"),
        (of_state(&|s| s["shape"] = json!([64])), "shape [64] is not that of a matrix"),
        (of_state(&|s| s["shape"] = json!([64, 65])), "2048 bytes do not hold a weight [64, 65] in NF4"),
        (of_state(&|s| s["shape"] = json!([u64::MAX, u64::MAX])), "do not hold a weight"),
        (of_state(&|s| s["shape"] = json!("x")), "no valid quant_state"),
        (of_state(&|s| s["nested_offset"] = json!(null)), "needs nested_blocksize, nested_offset"),
        (of_state(&|s| s["nested_blocksize"] = json!(0)), "needs nested_blocksize, nested_offset"),
        (of_state(&|s| s["nested_blocksize"] = json!(null)), "expected F32, found U8"),
        (of_state(&|s| s["nested_dtype"] = json!("float16")), "nested_dtype `float32`"),
        (of_state(&|s| *s = json!([1, 2])), "no valid quant_state"),
        (without("absmax"), "its table `model.layers.0.self_attn.q_proj.weight.absmax` is missing"),
        (without("quant_map"), "quant_map` is missing"),
        (without("nested_absmax"), "nested_absmax` is missing"),
        (without("nested_quant_map"), "nested_quant_map` is missing"),
        (without("quant_state.bitsandbytes__nf4"), "quant_state.bitsandbytes__nf4` is missing"),
        (shorter("absmax", 1), "holds 63 numbers, the weight needs 64"),
        (shorter("quant_map", 4), "holds 15 numbers, the table needs 16"),
        (shorter("nested_quant_map", 4), "holds 255 numbers, the table needs 256"),
        (shorter("nested_absmax", 4), "holds 0 numbers, the table of scales needs 1"),
        (
            error("llama-nf4", |t, _| t.get_mut(&beside("quant_map")).unwrap().2[..4].copy_from_slice(&[0; 4])),
            "the levels are not those of NF4",
        ),
        (
            error("llama-nf4", |_, c| c["quantization_config"]["load_in_8bit"] = json!(true)),
            "in 8 bits are not supported",
        ),
        (error("llama-nf4", |_, c| c["quantization_config"]["quant_method"] = json!("hqq")), "(hqq)"),
    ];
    for (found, want) in cases {
        let named = found.contains(Q) || found.contains("config.json");
        assert!(found.contains(want) && named && found.lines().count() == 1, "{want}: {found}");
    }
}

#[test]
fn every_damage_of_other_quantised_weights_has_its_error() {
    let q = |table: &str| format!("{Q}.{table}");
    let changed = |name: &str, table: &str, change: &dyn Fn(&mut Stored)| {
        error(name, |t, _| change(t.get_mut(&q(table)).unwrap()))
    };
    let without = |name: &str, table: &str| {
        error(name, |t, _| {
            t.remove(&q(table)).unwrap();
        })
    };
    let short = |t: &mut Stored| {
        let row = t.2.len() / t.1[0];
        t.2.truncate(t.2.len() - row);
        t.1[0] -= 1;
    };
    let cases = [
        (without("llama-gptq", "scales"), "q_proj.scales` is missing"),
        (without("llama-gptq", "qzeros"), "q_proj.qzeros` is missing"),
        (changed("llama-gptq", "scales", &short), "holds 64 numbers, the weight needs 128"),
        (changed("llama-gptq", "qzeros", &short), "holds 8 numbers, the weight needs 16"),
        (changed("llama-gptq", "g_idx", &short), "holds 63 numbers, the weight needs 64"),
        (changed("llama-gptq", "g_idx", &|t| t.2[0] = 99), "names group 99 of 2"),
        (changed("llama-gptq", "g_idx", &|t| t.2[3] = 0xff), "names group -16777216 of 2"),
        (changed("llama-gptq", "qweight", &|t| t.0 = DType::F32), "expected a matrix in I32"),
        (
            error("llama-gptq", |_, c| c["quantization_config"]["group_size"] = json!(48)),
            "holds 256 numbers, the weight needs 192",
        ),
        (error("llama-gptq", |_, c| c["quantization_config"]["group_size"] = json!(0)), "group_size"),
        (error("llama-gptq", |_, c| c["quantization_config"]["bits"] = json!(3)), "GPTQ in 3 bits"),
        (without("llama-awq", "scales"), "q_proj.scales` is missing"),
        (without("llama-awq", "qzeros"), "q_proj.qzeros` is missing"),
        (changed("llama-awq", "qzeros", &short), "holds 8 numbers, the weight needs 16"),
        (changed("llama-awq", "qweight", &|t| t.1 = vec![8, 8, 8]), "expected a matrix in I32"),
        (error("llama-awq", |_, c| c["quantization_config"]["version"] = json!("gemv")), "`gemv`"),
        (without("llama-fp8", "weight_scale_inv"), "weight_scale_inv` is missing"),
        (changed("llama-fp8", "weight_scale_inv", &short), "do not fit a weight [64, 64]"),
        (changed("llama-fp8", "weight_scale_inv", &|t| t.0 = DType::I32), "scales in I32 are not supported"),
    ];
    for (found, want) in cases {
        let named = found.contains("_proj") || found.contains("config.json");
        assert!(found.contains(want) && named && found.lines().count() == 1, "{want}: {found}");
    }
}

fn options(kind: FourBitName, nested: bool, skip: &[&str]) -> LoadIn4Bit {
    LoadIn4Bit {
        bnb_4bit_quant_type: kind,
        bnb_4bit_use_double_quant: nested,
        llm_int8_skip_modules: skip.iter().map(|s| s.to_string()).collect(),
    }
}

#[test]
fn a_checkpoint_is_quantised_while_it_is_read() {
    let dir = fixture("llama-sharded");
    let config = ModelConfig::load(&dir).unwrap();
    let plain = Checkpoint::open(&dir).unwrap();
    for (kind, dtype) in [(FourBitName::Nf4, DType::Nf4), (FourBitName::Fp4, DType::Fp4)] {
        for nested in [false, true] {
            let how = options(kind, nested, &["k_proj", "model.layers.1.mlp"]);
            let ckpt = how.apply(Checkpoint::open(&dir).unwrap(), &config).unwrap();
            assert_eq!((ckpt.loaded_in_4bit(), ckpt.len()), (Some(&how), plain.len()));
            for name in plain.names() {
                let (was, now) = (plain.tensor(name).unwrap(), ckpt.tensor(name).unwrap());
                assert_eq!(was.shape(), now.shape());
                let linear = name.contains("_proj.") && !name.contains("k_proj") && !name.contains("layers.1.mlp");
                assert_eq!(now.dtype(), if linear { dtype } else { DType::BF16 }, "{name}");
                if linear {
                    // no further from the weight than half the widest step between levels, in each block
                    let (was, now) = (was.to_f32().unwrap(), now.to_f32().unwrap());
                    for (was, now) in was.chunks(64).zip(now.chunks(64)) {
                        let top = was.iter().fold(0f32, |t, x| t.max(x.abs()));
                        assert!(was.iter().zip(now).all(|(a, b)| (a - b).abs() <= 0.2 * top), "{name}");
                    }
                    let t = ckpt.tensor(name).unwrap();
                    assert_eq!(t.stored().unwrap().sums(), t.in_file().unwrap().try_sums().unwrap());
                } else {
                    assert_eq!(was.bytes(), now.bytes());
                }
            }
            assert!(ckpt.total_bytes() < plain.total_bytes());
        }
    }
    let twice = options(FourBitName::Nf4, false, &[]);
    let packed = Checkpoint::open(fixture("llama-nf4")).unwrap();
    let e = twice.apply(packed, &config).unwrap_err().to_string();
    assert!(e.contains("quantised already") && e.contains("is NF4"), "{e}");
    let e = options(FourBitName::Nf4, false, &["model."]).apply(plain, &config).unwrap_err().to_string();
    assert!(e.contains("no layer to quantise"), "{e}");
}

/// transformers quantises the fixture's weights; so does this crate.
#[test]
fn load_in_4bit_gives_the_weights_that_transformers_saves() {
    for (name, kind, nested, skip) in
        [("llama-nf4", FourBitName::Nf4, true, &[][..]), ("llama-fp4", FourBitName::Fp4, false, &["lm_head", "k_proj"])]
    {
        let packed = Checkpoint::open(fixture(name)).unwrap();
        let original = repo_root().join("fixtures/ref").join(format!("{name}-original.safetensors"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(original, dir.path().join("model.safetensors")).unwrap();
        let config = ModelConfig::load(fixture(name)).unwrap();
        let own = options(kind, nested, skip).apply(Checkpoint::open(dir.path()).unwrap(), &config).unwrap();
        assert_eq!(own.names().collect::<Vec<_>>(), packed.names().collect::<Vec<_>>());
        for tensor in packed.names() {
            let (found, want) = (own.tensor(tensor).unwrap(), packed.tensor(tensor).unwrap());
            assert_eq!((found.dtype(), found.shape()), (want.dtype(), want.shape()), "{tensor}");
            assert_eq!(found.bytes(), want.bytes(), "{tensor}");
            assert_eq!(found.to_f32().unwrap(), want.to_f32().unwrap(), "{tensor}");
        }
    }
}
