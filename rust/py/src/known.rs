//! What has been told of tensors that every step sees again: an optimizer's parameters and states.
//!
//! With 1000 small tensors, asking them for all that a description needs would cost more than the
//! step. So [`Known`] keeps the descriptions of a parameter and its states for as long as they are
//! the same objects, at the same addresses and contiguous; by parameter, and not by tensor, because
//! one search for seven tensors takes less time than seven.

use crate::tensor::{Glance, describe_all};
use optim8_core::{Name, Tensor};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tensors of parameters, as they were at their last step.
#[pyclass(frozen, module = "optim8._native")]
#[derive(Default)]
pub(crate) struct Known(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// By the parameter's index in its optimizer.
    by_index: HashMap<u64, Entry>,
    /// Counts the steps.
    step: u64,
    /// Entries used in this step.
    n_used: usize,
}

/// A parameter and its states.
struct Entry {
    /// Kept alive by the entry, so that no other object can be where they are.
    objects: Vec<Py<PyAny>>,
    glances: Vec<Glance>,
    tensors: Vec<Tensor>,
    /// The step that used it last.
    step: u64,
}

#[pymethods]
impl Known {
    /// Knows nothing yet.
    #[new]
    fn new() -> Self {
        Self::default()
    }

    // A parameter may refer to its optimizer, by a hook say, so the collector has to see through.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(entries) = self.0.try_lock() else { return Ok(()) };
        let mut objects = entries.by_index.values().flat_map(|entry| &entry.objects);
        objects.try_for_each(|object| visit.call(object))
    }

    fn __clear__(&self) {
        let forgotten = core::mem::take(&mut self.lock().by_index);
        drop(forgotten);
    }
}

impl Known {
    /// Describes a parameter and its states, in this order; from memory, if a glance at them finds what
    /// it found before and the parameter has the shape of its gradient (it may have been reshaped
    /// where it lies).
    pub(crate) fn describe(
        &self,
        index: u64,
        tensors: &[Bound<'_, PyAny>],
        glances: Option<&[Glance]>,
        grad: &Tensor,
        names: impl FnOnce() -> Vec<Name>,
    ) -> PyResult<Vec<Tensor>> {
        if let Some(glances) = glances
            && let Some(remembered) = self.lock().recall(index, tensors, glances)
            && remembered[0].shape() == grad.shape()
        {
            return Ok(remembered);
        }
        let names = names();
        // Calls into Python, which may let another thread in, are made without the lock.
        let described =
            describe_all(&PyList::new(tensors[0].py(), tensors)?, |tensor| names[tensor])?;
        if let Some(glances) = glances
            && glances.iter().all(|glance| glance.is_contiguous)
        {
            let objects = tensors.iter().map(|tensor| tensor.clone().unbind()).collect();
            let before = self.lock().keep(index, objects, glances.to_vec(), described.clone());
            // The last references to tensors may go here, and with them code of theirs may run.
            drop(before);
        }
        Ok(described)
    }

    /// Ends a step: forgets parameters that it did not use, once they are the greater part.
    pub(crate) fn end_step(&self) {
        let forgotten: Vec<Entry> = {
            let mut entries = self.lock();
            let (step, n_used) = (entries.step, entries.n_used);
            entries.step += 1;
            entries.n_used = 0;
            if entries.by_index.len() <= 2 * n_used {
                return;
            }
            let stale = |_: &u64, entry: &mut Entry| entry.step != step;
            entries.by_index.extract_if(stale).map(|(_, entry)| entry).collect()
        };
        drop(forgotten); // without the lock, as above
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// What is known of the tensors of a parameter, if they look as they did.
    fn recall(
        &mut self,
        index: u64,
        tensors: &[Bound<'_, PyAny>],
        glances: &[Glance],
    ) -> Option<Vec<Tensor>> {
        let entry = self.by_index.get_mut(&index)?;
        let kept = entry.objects.iter().map(Py::as_ptr);
        if !kept.eq(tensors.iter().map(Bound::as_ptr)) || entry.glances != glances {
            return None;
        }
        if entry.step != self.step {
            entry.step = self.step;
            self.n_used += 1;
        }
        Some(entry.tensors.clone())
    }

    /// Keeps what is known of a parameter that this step uses; returns what was known before.
    fn keep(
        &mut self,
        index: u64,
        objects: Vec<Py<PyAny>>,
        glances: Vec<Glance>,
        tensors: Vec<Tensor>,
    ) -> Option<Entry> {
        let step = self.step;
        let before = self.by_index.insert(index, Entry { objects, glances, tensors, step });
        if before.as_ref().is_none_or(|before| before.step != step) {
            self.n_used += 1;
        }
        before
    }
}
