//! torch tensors as the core's descriptions of them.
//!
//! Torch's class describes its tensors itself (`dlpack.rs`), which matters where there are thousands of
//! small ones. Where it does not, because it is too old or because a tensor is not one for us, Python's
//! attributes of the tensor say where it lies, or what is wrong with it.

use crate::ahead::Structures;
use crate::dlpack::Exchange;
use crate::error::to_python;
use core::ptr::with_exposed_provenance_mut;
use optim8_core::{Dtype, Name, Tensor};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

/// What torch has of our dtypes and of layouts, its way of describing tensors, and where they lie.
pub(crate) struct Torch {
    class: Py<PyType>,
    exchange: Option<Exchange>,
    structures: Option<Structures>,
    dtypes: [(Py<PyAny>, Dtype); 5],
    strided: Py<PyAny>,
}

/// An address that is not likely to be of memory, or an offset in some.
const LOWEST_ADDRESS: usize = 1 << (usize::BITS * 9 / 16); // 64 GiB, where addresses have 64 bits

impl Torch {
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        static TORCH: PyOnceLock<Torch> = PyOnceLock::new();
        TORCH.get_or_try_init(py, || {
            let torch = py.import("torch")?;
            let dtype = |dtype: Dtype| -> PyResult<_> {
                Ok((torch.getattr(dtype.name())?.unbind(), dtype))
            };
            let class = torch.getattr("Tensor")?.cast_into::<PyType>()?;
            Ok(Self {
                exchange: Exchange::of(&class),
                structures: Structures::of(&class).ok().flatten(),
                class: class.unbind(),
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

    /// Told that the tensors of row `at` will be described now, and later those of the rows that follow.
    pub(crate) fn prefetch(&self, rows: &Bound<'_, PyTuple>, at: usize) -> PyResult<()> {
        self.structures.as_ref().map_or(Ok(()), |structures| structures.prefetch(rows, at))
    }

    /// Describes a tensor.
    pub(crate) fn describe(&self, tensor: &Bound<'_, PyAny>, name: Name) -> PyResult<Tensor> {
        let described = self.exchange.as_ref().and_then(|torch| torch.describe(tensor, name));
        let described = described.map_or_else(|| self.ask(tensor, name), Ok)?;
        // Where a storage has been emptied, torch gives the offset within nothing as an address.
        if described.begins_before(LOWEST_ADDRESS) {
            let storage = tensor.call_method0(intern!(tensor.py(), "untyped_storage"))?;
            if storage.call_method0(intern!(tensor.py(), "data_ptr"))?.extract::<usize>()? == 0 {
                return Err(to_python(described.without_memory()));
            }
        }
        Ok(described)
    }

    /// Describes a tensor that may be a view of numbers of the other sign, as the imaginary part of a
    /// conjugate is; and refuses it if it is one. Every other number of a complex tensor is imaginary, so
    /// several of them are contiguous only to who makes up strides for them; and to ask torch takes as
    /// long as all else.
    pub(crate) fn describe_view(&self, tensor: &Bound<'_, PyAny>, name: Name) -> PyResult<Tensor> {
        let described = self.describe(tensor, name)?;
        let may_be = described.n_elements() == 1 || !described.is_contiguous();
        if may_be && tensor.call_method0(intern!(tensor.py(), "is_neg"))?.is_truthy()? {
            return Err(PyRuntimeError::new_err(format!(
                "{name}: is_neg() is True where False was expected: call resolve_neg()"
            )));
        }
        Ok(described)
    }

    /// Describes a tensor by its attributes.
    fn ask(&self, tensor: &Bound<'_, PyAny>, name: Name) -> PyResult<Tensor> {
        let py = tensor.py();
        if !tensor.is_instance(self.class.bind(py))? {
            let found = tensor.get_type();
            return Err(PyTypeError::new_err(format!(
                "{name}: found {} where a torch.Tensor was expected",
                found.name()?
            )));
        }
        if !tensor.getattr(intern!(py, "is_cpu"))?.is_truthy()? {
            let device = tensor.getattr(intern!(py, "device"))?;
            return Err(PyRuntimeError::new_err(format!(
                "{name}: device {device} where cpu was expected"
            )));
        }
        let layout = tensor.getattr(intern!(py, "layout"))?;
        if !layout.is(&self.strided) {
            return Err(PyRuntimeError::new_err(format!(
                "{name}: layout {layout} where torch.strided was expected; optim8 does not support \
                 sparse tensors"
            )));
        }
        let found = tensor.getattr(intern!(py, "dtype"))?;
        let Some((_, dtype)) = self.dtypes.iter().find(|(dtype, _)| found.is(dtype)) else {
            return Err(PyTypeError::new_err(format!(
                "{name}: dtype {found} where float32, bfloat16, float16 or float64 was expected"
            )));
        };
        let shape: Vec<usize> = tensor.getattr(intern!(py, "shape"))?.extract()?;
        let strides: Vec<isize> = tensor.call_method0(intern!(py, "stride"))?.extract()?;
        let data = tensor.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let data = with_exposed_provenance_mut(data);
        // SAFETY: torch describes memory that it owns, and Python's arguments keep the tensor alive
        // during the call. As with torch's own functions, a program that resizes or writes a tensor
        // in another thread during a call on it has itself to blame.
        unsafe { Tensor::new(name, *dtype, data, &shape, Some(&strides)) }.map_err(to_python)
    }
}
