//! torch tensors as the core's descriptions of them.
//!
//! `data_ptr` and the like cost some 50 ns each, DLPack a hundred times as much; so a tensor is
//! described by calling its methods. Every call describes its tensors anew, and nothing is cached:
//! whatever was done to them in between, resized, moved or replaced, a step sees them as they are.

use crate::error::to_python;
use optim8_core::{Dtype, Name, Tensor};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// torch's objects that tensors are compared with.
struct Torch {
    dtypes: [(Py<PyAny>, Dtype); 5],
    strided: Py<PyAny>,
}

impl Torch {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static TORCH: PyOnceLock<Torch> = PyOnceLock::new();
        TORCH.get_or_try_init(py, || {
            let torch = py.import("torch")?;
            let dtype = |dtype: Dtype| -> PyResult<_> {
                Ok((torch.getattr(dtype.name())?.unbind(), dtype))
            };
            Ok(Self {
                dtypes: [
                    dtype(Dtype::Float32)?,
                    dtype(Dtype::UInt8)?,
                    dtype(Dtype::BFloat16)?,
                    dtype(Dtype::Float16)?,
                    dtype(Dtype::Float64)?,
                ],
                strided: torch.getattr("strided")?.unbind(),
            })
        })
    }
}

/// Describes a torch tensor.
pub(crate) fn describe(tensor: &Bound<'_, PyAny>, name: Name) -> PyResult<Tensor> {
    let py = tensor.py();
    let torch = Torch::get(py)?;
    if !tensor.getattr(intern!(py, "is_cpu"))?.is_truthy()? {
        let device = tensor.getattr(intern!(py, "device"))?;
        return Err(PyRuntimeError::new_err(format!(
            "{name}: device {device} where cpu was expected"
        )));
    }
    let layout = tensor.getattr(intern!(py, "layout"))?;
    if !layout.is(&torch.strided) {
        return Err(PyRuntimeError::new_err(format!(
            "{name}: layout {layout} where torch.strided was expected; optim8 does not support \
             sparse tensors"
        )));
    }
    let found = tensor.getattr(intern!(py, "dtype"))?;
    let Some((_, dtype)) = torch.dtypes.iter().find(|(dtype, _)| found.is(dtype)) else {
        return Err(PyTypeError::new_err(format!(
            "{name}: dtype {found} where float32, bfloat16, float16 or float64 was expected"
        )));
    };
    let shape: Vec<usize> = tensor.getattr(intern!(py, "shape"))?.extract()?;
    let contiguous = tensor.call_method0(intern!(py, "is_contiguous"))?.is_truthy()?;
    let strides = if contiguous {
        None
    } else {
        Some(tensor.call_method0(intern!(py, "stride"))?.extract()?)
    };
    let address: usize = tensor.call_method0(intern!(py, "data_ptr"))?.extract()?;
    let data = core::ptr::with_exposed_provenance_mut(address);
    // SAFETY: torch describes memory that it owns, and Python's arguments keep the tensor alive
    // during the call. As with torch's own functions, a program that resizes or writes a tensor in
    // another thread during a call on it has itself to blame.
    unsafe { Tensor::new(name, *dtype, data, shape, strides) }.map_err(to_python)
}
