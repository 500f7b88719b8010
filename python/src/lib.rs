//! The module `loram._loram`: loram-core on numpy arrays. Everything that knows of torch or PEFT is Python.
//!
//! Weights are (n, m) = (out_features, in_features), C-contiguous, in f32, f16, or bfloat16 as its bits in u16 (numpy has
//! no bfloat16). Recipes travel as the JSON that `loram.json` has for a layer.

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use loram_core::{
    Error, Factors, Initialization, LayerInput, LayerPlan, LayerRecipe, LoraConfig, SchemeOptions, SchemeSpec,
    StoredWeight, growth,
};
use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;

fn refused(e: Error) -> PyErr {
    PyValueError::new_err(e.to_string())
}

/// One of the types that weights are stored in, borrowed from Python for the time of a call.
enum Array<'py> {
    F32(PyReadonlyArray2<'py, f32>),
    F16(PyReadonlyArray2<'py, f16>),
    BF16(PyReadonlyArray2<'py, u16>),
}

impl<'py> Array<'py> {
    fn new(values: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
        if let Ok(x) = values.extract() {
            return Ok(Array::F32(x));
        }
        if let Ok(x) = values.extract() {
            return Ok(Array::F16(x));
        }
        let expected = "expected a weight (n, m) in float32, float16, or bfloat16 as uint16";
        values.extract().map(Array::BF16).map_err(|_| PyTypeError::new_err(expected))
    }

    fn weight(&self) -> PyResult<StoredWeight<'_>> {
        fn values<'a, T: Element>(x: &'a PyReadonlyArray2<'_, T>) -> PyResult<(&'a [T], usize, usize)> {
            let values = x.as_slice().map_err(|_| PyTypeError::new_err("expected a C-contiguous weight"))?;
            Ok((values, x.shape()[0], x.shape()[1]))
        }
        Ok(match self {
            Array::F32(x) => {
                let (values, n, m) = values(x)?;
                StoredWeight::of(values, n, m)
            }
            Array::F16(x) => {
                let (values, n, m) = values(x)?;
                StoredWeight::of(values, n, m)
            }
            Array::BF16(x) => {
                let (bits, n, m) = values(x)?;
                StoredWeight::of(bits.reinterpret_cast::<bf16>(), n, m)
            }
        })
    }
}

/// A scheme with its options, parsed once for all layers.
#[pyclass(frozen, module = "loram._loram")]
struct Scheme {
    spec: SchemeSpec,
}

// keyword arguments in Python
#[allow(clippy::too_many_arguments)]
#[pymethods]
impl Scheme {
    #[new]
    fn new(name: &str, options: &str) -> PyResult<Scheme> {
        let options: SchemeOptions =
            serde_json::from_str(options).map_err(|e| PyValueError::new_err(format!("scheme options: {e}")))?;
        Ok(Scheme { spec: SchemeSpec::parse(name, &options).map_err(refused)? })
    }

    /// Canonical name.
    #[getter]
    fn name(&self) -> String {
        self.spec.to_string()
    }

    /// The options as `loram.json` has them.
    #[getter]
    fn options(&self) -> PyResult<String> {
        serde_json::to_string(self.spec.options()).map_err(|e| PyValueError::new_err(e.to_string()))
    }

    /// True when the base becomes W − s·B₀A₀.
    #[getter]
    fn changes_base(&self) -> bool {
        self.spec.info().changes_base
    }

    /// True when only the sums Σx and Σx² of a weight are read.
    #[getter]
    fn sums_suffice(&self) -> bool {
        self.spec.sums_suffice()
    }

    /// The statistic of calibration data that is needed, in a few words; None when no data are needed.
    #[getter]
    fn calibrated_by(&self) -> Option<&'static str> {
        self.spec.statistic().describe()
    }

    /// Initialises a layer from its weight.
    #[pyo3(signature = (path, weight, r, lora_alpha, scaling, seed))]
    fn start<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        weight: &Bound<'py, PyAny>,
        r: usize,
        lora_alpha: f64,
        scaling: f64,
        seed: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let array = Array::new(weight)?;
        let w = array.weight()?;
        let plan = LayerPlan { path: path.into(), n: w.rows(), m: w.cols(), r, lora_alpha, scaling };
        let spec = &self.spec;
        let start = py.detach(|| loram_core::initialize(spec, w, &plan, seed)).map_err(refused)?;
        as_dict(py, start)
    }

    /// Initialises a layer from Σx and Σx² of its weight.
    #[pyo3(signature = (path, sums, n, m, r, lora_alpha, scaling, seed))]
    fn start_from_sums<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        sums: (f64, f64),
        n: usize,
        m: usize,
        r: usize,
        lora_alpha: f64,
        scaling: f64,
        seed: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let plan = LayerPlan { path: path.into(), n, m, r, lora_alpha, scaling };
        let spec = &self.spec;
        let start = py.detach(|| loram_core::initialize(spec, LayerInput::sums(sums), &plan, seed)).map_err(refused)?;
        as_dict(py, start)
    }
}

type Matrix<'py> = Bound<'py, PyArray2<f32>>;

fn matrix(py: Python<'_>, values: Vec<f32>, rows: usize, cols: usize) -> PyResult<Matrix<'_>> {
    values.into_pyarray(py).reshape([rows, cols])
}

/// A (r, m) and B (n, r).
fn matrices(py: Python<'_>, f: Factors) -> PyResult<(Matrix<'_>, Matrix<'_>)> {
    Ok((matrix(py, f.a, f.r, f.m)?, matrix(py, f.b, f.n, f.r)?))
}

fn as_dict(py: Python<'_>, start: Initialization) -> PyResult<Bound<'_, PyDict>> {
    let recipe = serde_json::to_string(&start.recipe).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let out = PyDict::new(py);
    let (a, b) = matrices(py, start.factors)?;
    out.set_item("a", a)?;
    out.set_item("b", b)?;
    out.set_item("changes_base", start.changes_base)?;
    out.set_item("lora_alpha", start.lora_alpha)?;
    out.set_item("scaling", start.scaling)?;
    out.set_item("train_a", start.train_a)?;
    out.set_item("train_b", start.train_b)?;
    out.set_item("recipe", recipe)?;
    Ok(out)
}

/// (A₀ (r, m), B₀ (n, r)) of a layer's recipe, or None when it needs the weight.
#[pyfunction]
fn from_recipe<'py>(py: Python<'py>, recipe: &str) -> PyResult<Option<(Matrix<'py>, Matrix<'py>)>> {
    let recipe: LayerRecipe =
        serde_json::from_str(recipe).map_err(|e| PyValueError::new_err(format!("no valid recipe: {e}")))?;
    py.detach(|| loram_core::from_recipe(&recipe)).map(|f| matrices(py, f)).transpose()
}

/// (r, lora_alpha, rank_pattern, alpha_pattern) of the plain form of an adapter with these settings.
#[pyfunction]
fn plain_settings(
    r: usize,
    lora_alpha: f64,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
    use_rslora: bool,
) -> (usize, f64, BTreeMap<String, usize>, BTreeMap<String, f64>) {
    let plain = LoraConfig { r, lora_alpha, rank_pattern, alpha_pattern, use_rslora, ..LoraConfig::default() }.plain();
    (plain.r, plain.lora_alpha, plain.rank_pattern, plain.alpha_pattern)
}

/// Facts about every scheme, the default first.
#[pyfunction]
fn schemes(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let row = |s: &&loram_core::SchemeInfo| {
        let out = PyDict::new(py);
        out.set_item("name", s.name)?;
        out.set_item("summary", s.summary)?;
        out.set_item("source", s.source)?;
        out.set_item("needs_weight", s.needs_weight())?;
        out.set_item("changes_base", s.changes_base)?;
        out.set_item("calibrated_by", s.statistic.describe())?;
        out.set_item("options", s.option_keys())?;
        Ok(out)
    };
    loram_core::registry().iter().map(row).collect()
}

/// (Σx, Σx²) of a weight in f64.
#[pyfunction]
fn sums(py: Python<'_>, weight: &Bound<'_, PyAny>) -> PyResult<(f64, f64)> {
    let array = Array::new(weight)?;
    let w = array.weight()?;
    Ok(py.detach(|| w.sums()))
}

/// All singular values of a weight, descending.
#[pyfunction]
fn singular_values<'py>(
    py: Python<'py>,
    path: &str,
    weight: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let array = Array::new(weight)?;
    let w = array.weight()?;
    let sigma = py.detach(|| loram_core::singular_values(path, w)).map_err(refused)?;
    Ok(sigma.into_pyarray(py))
}

/// Q[r] from singular values in descending order.
#[pyfunction]
fn exact_gain(sigma: Vec<f64>, r: usize) -> f64 {
    loram_core::exact_gain(&sigma, r)
}

/// Q[r] by the logarithmic model.
#[pyfunction]
fn log_gain(r: usize, n: usize, m: usize) -> f64 {
    loram_core::log_gain(r, n, m)
}

/// k₁ (Proposition 2) of factors A (r, m) and B (n, r) at s = 1.
#[pyfunction]
fn k1(a: PyReadonlyArray2<'_, f32>, b: PyReadonlyArray2<'_, f32>, train_a: bool, train_b: bool) -> PyResult<f64> {
    let (&[r, m], &[n, r_b]) = (a.shape(), b.shape()) else { unreachable!("both are 2-D") };
    if r != r_b {
        return Err(PyValueError::new_err(format!("A ({r}, {m}) and B ({n}, {r_b}) do not fit together")));
    }
    let contiguous = |_| PyTypeError::new_err("expected C-contiguous factors");
    let (a, b) = (a.as_slice().map_err(contiguous)?.to_vec(), b.as_slice().map_err(contiguous)?.to_vec());
    Ok(growth::k1_of_factors(&Factors { n, m, r, a, b }, train_a, train_b))
}

/// Second moment of ΔW after `steps` of SGD: s⁴·k₁·lr²·σ_L²·steps.
#[pyfunction]
fn sgd_growth(k1: f64, scaling: f64, lr: f64, grad_nu: f64, steps: f64) -> f64 {
    growth::sgd(k1, scaling, lr, grad_nu, steps)
}

/// Second moment of one step of Adam.
#[pyfunction]
fn adam_step(scaling: f64, r: usize, lr_a: f64, lr_b: f64, nu_a: f64, nu_b: f64) -> f64 {
    growth::adam_step(scaling, r, lr_a, lr_b, nu_a, nu_b)
}

/// The rate at which a run whose magnitude is `own` at rate `lr` reaches `wanted`.
#[pyfunction]
fn matching_lr(lr: f64, own: f64, wanted: f64) -> f64 {
    growth::matching_lr(lr, own, wanted)
}

#[pymodule]
fn _loram(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<Scheme>()?;
    m.add_function(wrap_pyfunction!(from_recipe, m)?)?;
    m.add_function(wrap_pyfunction!(plain_settings, m)?)?;
    m.add_function(wrap_pyfunction!(schemes, m)?)?;
    m.add_function(wrap_pyfunction!(sums, m)?)?;
    m.add_function(wrap_pyfunction!(singular_values, m)?)?;
    m.add_function(wrap_pyfunction!(exact_gain, m)?)?;
    m.add_function(wrap_pyfunction!(log_gain, m)?)?;
    m.add_function(wrap_pyfunction!(k1, m)?)?;
    m.add_function(wrap_pyfunction!(sgd_growth, m)?)?;
    m.add_function(wrap_pyfunction!(adam_step, m)?)?;
    m.add_function(wrap_pyfunction!(matching_lr, m)?)?;
    Ok(())
}
