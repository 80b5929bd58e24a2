//! The step: all tensors of all groups in one call.

use crate::error::to_python;
use crate::quant::PyCodec;
use crate::tensor::describe;
use optim8_core::{Name, Options, RULES, RuleEntry, StepGroup, StepTensors};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

/// What each rule is made of: its states, which of them may be negative, its hyperparameters.
pub(crate) fn rules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let rules = PyDict::new(py);
    for rule in RULES {
        let entry = PyDict::new(py);
        entry.set_item("states", rule.states)?;
        entry.set_item("signed", rule.signed)?;
        entry.set_item("hyper", rule.hyper)?;
        rules.set_item(rule.name, entry)?;
    }
    Ok(rules)
}

/// Steps all parameters of all groups; returns the number of blocks skipped.
#[pyfunction]
#[pyo3(signature = (groups, n_threads))]
pub(crate) fn step(
    py: Python<'_>,
    groups: &Bound<'_, PyList>,
    n_threads: usize,
) -> PyResult<usize> {
    let groups = groups.iter().map(|group| step_group(&group)).collect::<PyResult<Vec<_>>>()?;
    py.detach(|| optim8_core::step(&groups, n_threads)).map_err(to_python)
}

/// (rule, hyperparameters, options, tensors)
fn step_group(group: &Bound<'_, PyAny>) -> PyResult<StepGroup> {
    let (rule, hyper, options, tensors): (
        Bound<'_, PyAny>,
        Bound<'_, PyDict>,
        Bound<'_, PyDict>,
        Bound<'_, PyList>,
    ) = group.extract()?;
    let rule = RuleEntry::named(rule.extract()?).map_err(to_python)?;
    Ok(StepGroup {
        rule,
        hyper: step_hyper(rule, &hyper)?,
        options: step_options(&options)?,
        tensors: tensors
            .iter()
            .map(|tensors| step_tensors(rule, tensors.cast()?))
            .collect::<PyResult<_>>()?,
    })
}

fn step_hyper(rule: &RuleEntry, hyper: &Bound<'_, PyDict>) -> PyResult<Vec<f64>> {
    if let Some(unknown) = hyper
        .keys()
        .iter()
        .find(|key| key.extract::<&str>().map_or(true, |key| !rule.hyper.contains(&key)))
    {
        return Err(PyValueError::new_err(format!(
            "rule '{}' takes no hyperparameter {}: expected {}",
            rule.name,
            unknown.repr()?,
            rule.hyper.join(", ")
        )));
    }
    rule.hyper.iter().map(|name| item(hyper, name)?.extract()).collect()
}

fn step_options(options: &Bound<'_, PyDict>) -> PyResult<Options> {
    Ok(Options {
        codec: item(options, "codec")?.cast::<PyCodec>()?.get().0.clone(),
        block_size: item(options, "block_size")?.extract()?,
        stochastic: item(options, "stochastic")?.extract()?,
        skip_nonfinite: item(options, "skip_nonfinite")?.extract()?,
        seed: item(options, "seed")?.extract()?,
    })
}

fn item<'py>(dict: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    dict.get_item(name)?.ok_or_else(|| PyValueError::new_err(format!("missing '{name}'")))
}

/// (index, parameter, gradient, step, states ...)
fn step_tensors(rule: &RuleEntry, tensors: &Bound<'_, PyTuple>) -> PyResult<StepTensors> {
    let index: u64 = tensors.get_item(0)?.extract()?;
    let n_given = tensors.len().saturating_sub(4);
    let quantized = n_given == 2 * rule.states.len();
    let states = (0..n_given).map(|i| {
        // With another number of states than the rule has, which one is which is not known; the
        // core will refuse them.
        let (state, kind) = match (quantized, i % 2) {
            (false, _) => (i, ""),
            (true, 0) => (i / 2, "_codes"),
            (true, _) => (i / 2, "_scales"),
        };
        let what = rule.states.get(state).copied().unwrap_or("surplus state");
        describe(&tensors.get_item(4 + i)?, Name::Of(what, index, kind))
    });
    Ok(StepTensors {
        index,
        param: describe(&tensors.get_item(1)?, Name::Param(index))?,
        grad: describe(&tensors.get_item(2)?, Name::Of("gradient", index, ""))?,
        step: describe(&tensors.get_item(3)?, Name::Of("step", index, ""))?,
        states: states.collect::<PyResult<_>>()?,
    })
}
