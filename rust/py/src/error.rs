//! The core's errors as Python's exceptions, in one place.

use optim8_core::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};

/// The exception that torch raises for the like.
pub(crate) fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Dtype { .. } => PyTypeError::new_err(message),
        Error::SelfOverlap { .. } | Error::Alias { .. } | Error::Level { .. } => {
            PyRuntimeError::new_err(message)
        }
        _ => PyValueError::new_err(message),
    }
}
