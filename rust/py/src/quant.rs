//! Codecs, and the calls that quantize and dequantize.

use crate::error::to_python;
use crate::tensor::Torch;
use optim8_core::{Codec, Layout, Name, QuantizeCall};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// How a normalized value becomes a byte.
#[pyclass(frozen, name = "Codec", module = "optim8._native")]
pub(crate) struct PyCodec(pub(crate) Codec);

#[pymethods]
impl PyCodec {
    /// A codec by its name.
    #[staticmethod]
    fn builtin(name: &str) -> PyResult<Self> {
        Codec::builtin(name).map(Self).map_err(to_python)
    }

    /// A codec of two tables of 256 values.
    #[staticmethod]
    fn custom(name: &str, signed: Vec<f32>, unsigned: Vec<f32>) -> PyResult<Self> {
        Codec::custom(name, &signed, &unsigned).map(Self).map_err(to_python)
    }

    /// The name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The 256 values that codes stand for.
    fn codebook(&self, signed: bool) -> Vec<f32> {
        self.0.codebook(signed).values().to_vec()
    }

    fn __repr__(&self) -> String {
        format!("Codec({:?})", self.0.name())
    }
}

/// The shape of the scales of a tensor of this shape.
#[pyfunction]
pub(crate) fn scales_shape<'py>(
    py: Python<'py>,
    shape: Vec<usize>,
    block_size: usize,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, Layout::new(&shape, block_size).map_err(to_python)?.scales_shape())
}

/// Asks the system to back new memory by large pages.
#[pyfunction]
pub(crate) fn prefer_large_pages(address: usize, nbytes: usize) {
    optim8_core::prefer_large_pages(address..address.saturating_add(nbytes));
}

/// Writes the codes and scales of `x`.
#[pyfunction]
#[pyo3(signature = (x, codes, scales, *, codec, signed, block_size, n_threads))]
pub(crate) fn quantize(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
    codec: &PyCodec,
    signed: bool,
    block_size: usize,
    n_threads: usize,
) -> PyResult<()> {
    let call = call(x, codes, scales, codec, signed, block_size)?;
    py.detach(|| optim8_core::quantize(&call, n_threads)).map_err(to_python)
}

/// Writes the values of codes and scales to `out`.
#[pyfunction]
#[pyo3(signature = (codes, scales, out, *, codec, signed, block_size, n_threads))]
pub(crate) fn dequantize(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    codec: &PyCodec,
    signed: bool,
    block_size: usize,
    n_threads: usize,
) -> PyResult<()> {
    let call = call(out, codes, scales, codec, signed, block_size)?;
    py.detach(|| optim8_core::dequantize(&call, n_threads)).map_err(to_python)
}

fn call(
    values: &Bound<'_, PyAny>,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
    codec: &PyCodec,
    signed: bool,
    block_size: usize,
) -> PyResult<QuantizeCall> {
    let torch = Torch::get(values.py())?;
    Ok(QuantizeCall {
        values: torch.describe_view(values, Name::Plain("values"))?,
        codes: torch.describe(codes, Name::Plain("codes"))?,
        scales: torch.describe(scales, Name::Plain("scales"))?,
        codec: codec.0.clone(),
        signed,
        block_size,
    })
}
