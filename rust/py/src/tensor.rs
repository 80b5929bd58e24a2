//! torch tensors as the core's descriptions of them.
//!
//! A tensor is described by asking it for six things. Each costs some 100 ns from Python and three
//! times as much from here, for want of a fast call in the stable interface; DLPack costs a hundred
//! times as much. So tensors are asked together, by Python's own `map`; and those that were asked
//! before are only glanced at (`known.rs`).

use crate::error::to_python;
use optim8_core::{Dtype, Name, Shape, Tensor};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};

/// The Python objects that tensors are asked and compared with.
struct Torch {
    dtypes: [(Py<PyAny>, Dtype); 5],
    strided: Py<PyAny>,
    /// Of a tensor: (is_cpu, layout, dtype, shape).
    attributes: Py<PyAny>,
    data_ptr: Py<PyAny>,
    is_contiguous: Py<PyAny>,
    list: Py<PyAny>,
    map: Py<PyAny>,
}

impl Torch {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static TORCH: PyOnceLock<Torch> = PyOnceLock::new();
        TORCH.get_or_try_init(py, || {
            let torch = py.import("torch")?;
            let tensor = torch.getattr("Tensor")?;
            let builtins = py.import("builtins")?;
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
                attributes: py
                    .import("operator")?
                    .call_method1("attrgetter", ("is_cpu", "layout", "dtype", "shape"))?
                    .unbind(),
                data_ptr: tensor.getattr("data_ptr")?.unbind(),
                is_contiguous: tensor.getattr("is_contiguous")?.unbind(),
                list: builtins.getattr("list")?.unbind(),
                map: builtins.getattr("map")?.unbind(),
            })
        })
    }

    /// `list(map(question, tensors))`
    fn ask<'py>(
        &self,
        question: &Py<PyAny>,
        tensors: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = tensors.py();
        let answers = self.map.bind(py).call1((question, tensors))?;
        Ok(self.list.bind(py).call1((answers,))?.cast_into()?)
    }

    /// What changes when a tensor's memory does.
    fn glance(&self, tensors: &Bound<'_, PyList>) -> PyResult<Vec<Glance>> {
        let addresses = self.ask(&self.data_ptr, tensors)?;
        let contiguous = self.ask(&self.is_contiguous, tensors)?;
        let pairs = addresses.iter().zip(contiguous.iter());
        pairs
            .map(|(address, contiguous)| {
                Ok(Glance { address: address.extract()?, is_contiguous: contiguous.is_truthy()? })
            })
            .collect()
    }
}

/// What changes when a tensor's memory does.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Glance {
    address: usize,
    pub(crate) is_contiguous: bool,
}

/// Looks at many tensors; at none of them if one has no memory to look at.
pub(crate) fn glance(tensors: &Bound<'_, PyList>) -> PyResult<Option<Vec<Glance>>> {
    Ok(Torch::get(tensors.py())?.glance(tensors).ok())
}

/// Describes a torch tensor.
pub(crate) fn describe(tensor: &Bound<'_, PyAny>, name: Name) -> PyResult<Tensor> {
    let tensors = PyList::new(tensor.py(), [tensor])?;
    Ok(describe_all(&tensors, |_| name)?.pop().expect("one for each tensor"))
}

/// Describes torch tensors, of which `name` tells the names.
pub(crate) fn describe_all(
    tensors: &Bound<'_, PyList>,
    name: impl Fn(usize) -> Name,
) -> PyResult<Vec<Tensor>> {
    let mut all = Vec::with_capacity(tensors.len());
    for start in (0..tensors.len()).step_by(BATCH) {
        let batch = tensors.get_slice(start, start + BATCH);
        all.extend(describe_batch(&batch, |i| name(start + i))?);
    }
    Ok(all)
}

/// Tensors that are asked together: few enough that their answers, which are tuples, do not make
/// Python's collector of garbage look for some (it does at 700).
const BATCH: usize = 128;

fn describe_batch(
    tensors: &Bound<'_, PyList>,
    name: impl Fn(usize) -> Name,
) -> PyResult<Vec<Tensor>> {
    let torch = Torch::get(tensors.py())?;
    let attributes = torch.ask(&torch.attributes, tensors)?;
    // Which tensors are strided and on the CPU must be known before any is asked for its memory.
    let kinds = attributes
        .iter()
        .enumerate()
        .map(|(i, attributes)| kind(torch, &tensors.get_item(i)?, attributes.cast()?, name(i)))
        .collect::<PyResult<Vec<_>>>()?;
    let glances = torch.glance(tensors)?;
    let all = kinds.into_iter().zip(glances).zip(tensors.iter()).enumerate();
    all.map(|(i, (((dtype, shape), glance), tensor))| {
        let strides = if glance.is_contiguous {
            None
        } else {
            Some(tensor.call_method0(intern!(tensor.py(), "stride"))?.extract()?)
        };
        let data = core::ptr::with_exposed_provenance_mut(glance.address);
        // SAFETY: torch describes memory that it owns, and Python's arguments keep the tensor alive
        // during the call. As with torch's own functions, a program that resizes or writes a tensor
        // in another thread during a call on it has itself to blame.
        unsafe { Tensor::new(name(i), dtype, data, &shape, strides) }.map_err(to_python)
    })
    .collect()
}

/// The dtype and shape of a tensor, from its attributes.
fn kind(
    torch: &Torch,
    tensor: &Bound<'_, PyAny>,
    attributes: &Bound<'_, PyTuple>,
    name: Name,
) -> PyResult<(Dtype, Shape)> {
    if !attributes.get_item(0)?.is_truthy()? {
        let device = tensor.getattr(intern!(tensor.py(), "device"))?;
        return Err(PyRuntimeError::new_err(format!(
            "{name}: device {device} where cpu was expected"
        )));
    }
    let layout = attributes.get_item(1)?;
    if !layout.is(&torch.strided) {
        return Err(PyRuntimeError::new_err(format!(
            "{name}: layout {layout} where torch.strided was expected; optim8 does not support \
             sparse tensors"
        )));
    }
    let found = attributes.get_item(2)?;
    let Some((_, dtype)) = torch.dtypes.iter().find(|(dtype, _)| found.is(dtype)) else {
        return Err(PyTypeError::new_err(format!(
            "{name}: dtype {found} where float32, bfloat16, float16 or float64 was expected"
        )));
    };
    let shape = attributes.get_item(3)?;
    let shape =
        shape.cast::<PyTuple>()?.iter().map(|len| len.extract()).collect::<PyResult<_>>()?;
    Ok((*dtype, shape))
}
