//! The Python module `optim8._native`: the core's calls, on torch tensors.
//!
//! Only conversions are here. Tensors come as Python objects, are described (`tensor.rs`), and stay
//! referenced by the arguments for as long as a call runs; the interpreter is released while it does.

mod ahead;
mod dlpack;
mod error;
mod quant;
mod step;
mod tensor;

use pyo3::prelude::*;

/// The compiled part of optim8.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::quant::{PyCodec, dequantize, prefer_large_pages, quantize, scales_shape};
    #[pymodule_export]
    use super::step::{check_step, step, step_lengths, sum_of_squares};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Of the package, which may have been loaded before a fork that this module comes after.
        let process = module.py().import("optim8")?.getattr("_process")?;
        optim8_core::pool::init(process.extract()?);
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("CODECS", optim8_core::Codec::names().collect::<Vec<_>>())?;
        module.add("RULES", super::step::rules(module.py())?)
    }

    /// What runs here: version, instruction sets, threads.
    #[pyfunction]
    fn info(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyDict>> {
        use optim8_core::{Level, pool};
        let info = pyo3::types::PyDict::new(py);
        info.set_item("version", env!("CARGO_PKG_VERSION"))?;
        info.set_item("level", Level::best().map_err(super::error::to_python)?.name())?;
        let levels: Vec<_> = Level::available().into_iter().map(Level::name).collect();
        info.set_item("levels", levels)?;
        info.set_item("threads_backend", pool::Backend::current().name())?;
        info.set_item("max_threads", pool::max_threads())?;
        Ok(info)
    }
}
