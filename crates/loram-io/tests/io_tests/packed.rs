//! A packing from outside the crate: 4-bit codes, two in a byte, with a scale for every 32 values in another tensor.

use loram_core::{LoraConfig, SchemeOptions, SchemeSpec, WeightFormat};
use loram_io::checkpoint::{Packed, Packing, TensorInfo, TensorSpec, pt_metadata, write_safetensors};
use loram_io::init::{BaseName, InitOptions, init};
use loram_io::{Checkpoint, DType, Error, Result, TensorRef};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

const GROUP: usize = 32;

#[derive(Debug)]
struct FourBits {
    scales: Vec<f32>,
}

impl WeightFormat for FourBits {
    fn name(&self) -> &'static str {
        "four bits"
    }

    fn block_values(&self) -> usize {
        2
    }

    fn block_bytes(&self) -> usize {
        1
    }

    #[inline(always)]
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        for (i, x) in out.iter_mut().enumerate() {
            let code = bytes[i / 2] >> (4 * (i % 2)) & 15;
            *x = (f32::from(code) - 7.5) * self.scales[(first + i) / GROUP];
        }
    }
}

/// `<name>` is packed where there is a `<name>.scales` (n, m/32); the tensor itself is a list of bytes.
#[derive(Debug)]
struct WithScales;

impl Packing for WithScales {
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>> {
        let Some(scales) = tensor(&format!("{name}.scales")).filter(|_| info.dtype == DType::U8) else {
            return Ok(None);
        };
        let (n, groups) = scales.dims2()?;
        let format = Arc::new(FourBits { scales: scales.to_f32()? });
        let companions = vec![format!("{name}.scales")];
        Ok(Some(Packed { companions, ..Packed::new(DType::U8, vec![n, groups * GROUP], format) }))
    }
}

const PATH: &str = "model.layers.0.mlp.up_proj";

/// A file with one packed weight (n, m) and one of plain bytes; returns the values of the first.
fn write(path: &Path, n: usize, m: usize, bytes: usize) -> Vec<f32> {
    let codes: Vec<u8> = (0..bytes).map(|i| (i * 73 % 251) as u8).collect();
    let scales: Vec<f32> = (0..n * m / GROUP).map(|i| 0.01 + (i % 7) as f32 * 0.003).collect();
    let raw: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    let values = (0..n * m).filter_map(|i| {
        let code = codes.get(i / 2)? >> (4 * (i % 2)) & 15;
        Some((f32::from(code) - 7.5) * scales[i / GROUP])
    });
    let values = values.collect();
    let spec = |name: &str, dtype, shape: &[usize]| TensorSpec::new(format!("{PATH}.{name}"), dtype, shape);
    let mut writer = loram_io::checkpoint::SafetensorsWriter::create(
        path,
        &pt_metadata(),
        vec![
            spec("weight", DType::U8, &[bytes, 1]),
            spec("weight.scales", DType::F32, &[n, m / GROUP]),
            spec("other", DType::U8, &[4]),
        ],
    )
    .unwrap();
    writer.put(&format!("{PATH}.weight"), &codes).unwrap();
    writer.put(&format!("{PATH}.weight.scales"), &raw).unwrap();
    writer.put(&format!("{PATH}.other"), &[1, 2, 3, 4]).unwrap();
    writer.finish().unwrap();
    values
}

#[test]
fn a_weight_with_tables_beside_it_is_read_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let (n, m) = (48, 64);
    let values = write(&dir.path().join("model.safetensors"), n, m, n * m / 2);
    let plain = Checkpoint::open(dir.path()).unwrap();
    let name = format!("{PATH}.weight");
    assert_eq!(plain.info(&name).unwrap().shape, [n * m / 2, 1]);
    assert!(plain.tensor(&name).unwrap().to_f32().unwrap_err().to_string().contains("U8"));

    let ckpt = plain.with_packings(&[&WithScales]).unwrap();
    let t = ckpt.tensor(&name).unwrap();
    assert_eq!((ckpt.info(&name).unwrap().shape.as_slice(), t.shape()), (&[n, m][..], &[n, m][..]));
    assert_eq!(t.to_f32().unwrap(), values);
    assert_eq!(t.stored().unwrap().sums(), t.in_file().unwrap().try_sums().unwrap(), "in memory and from the file");
    assert!(!ckpt.contains(&format!("{name}.scales")), "tables are no tensors of the model");
    assert!(ckpt.tensor(&format!("{PATH}.other")).unwrap().to_f32().is_err(), "other bytes stay bytes");

    // an initialisation is that of the same values stored plainly
    let other = tempfile::tempdir().unwrap();
    let tensors = vec![(TensorSpec::new(&name, DType::F32, &[n, m]), Cow::Owned(values))];
    write_safetensors(other.path().join("model.safetensors"), &pt_metadata(), tensors).unwrap();
    for scheme in ["loram", "pissa"] {
        let lora = LoraConfig { r: 4, lora_alpha: 4.0, ..LoraConfig::default() };
        let scheme = SchemeSpec::parse(scheme, &SchemeOptions::default()).unwrap();
        let options = InitOptions { lora, scheme, seed: 3 };
        let base = BaseName { name: "base", revision: None };
        let made = |ckpt: &Checkpoint| init(ckpt, None, &options, base, &|_, _, _| ()).unwrap().0.layers;
        assert_eq!(made(&ckpt), made(&Checkpoint::open(other.path()).unwrap()));
    }
}

#[test]
fn tables_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), 48, 64, 100);
    let error: Error = Checkpoint::open(dir.path()).unwrap().with_packings(&[&WithScales]).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("up_proj.weight") && said.contains("100 bytes") && said.contains("[48, 64]"), "{said}");
}
