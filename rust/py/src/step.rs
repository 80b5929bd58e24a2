//! The step: all tensors of all groups in one call.

use crate::error::to_python;
use crate::quant::PyCodec;
use crate::tensor::Torch;
use optim8_core::{Name, Options, RULES, RuleEntry, StepGroup};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

/// What each rule is made of: its states and what they hold, its hyperparameters, its scalars.
pub(crate) fn rules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let rules = PyDict::new(py);
    for rule in RULES {
        let entry = PyDict::new(py);
        let states = PyDict::new(py);
        for state in rule.states {
            states.set_item(state.name, state.kind.name())?;
        }
        entry.set_item("states", states)?;
        entry.set_item("hyper", rule.hyper)?;
        entry.set_item("scalars", rule.scalars)?;
        rules.set_item(rule.name, entry)?;
    }
    Ok(rules)
}

/// Steps all parameters of all groups; returns the number of blocks skipped.
///
/// `factors` has one for each parameter, by which its update is multiplied.
#[pyfunction]
#[pyo3(signature = (groups, n_threads, factors=None))]
pub(crate) fn step(
    py: Python<'_>,
    groups: &Bound<'_, PyList>,
    n_threads: usize,
    factors: Option<Vec<f64>>,
) -> PyResult<usize> {
    let (groups, _rows) = step_groups(groups)?;
    py.detach(|| optim8_core::step(&groups, factors.as_deref(), n_threads)).map_err(to_python)
}

/// Measures the updates that `step` would make; returns the number of blocks skipped, and the length of
/// each parameter's update. Parameters are not written; states are if `write_states`.
#[pyfunction]
pub(crate) fn step_lengths(
    py: Python<'_>,
    groups: &Bound<'_, PyList>,
    n_threads: usize,
    write_states: bool,
) -> PyResult<(usize, Vec<f64>)> {
    let (groups, _rows) = step_groups(groups)?;
    py.detach(|| optim8_core::step_lengths(&groups, write_states, n_threads)).map_err(to_python)
}

/// Raises what `step` would raise.
#[pyfunction]
pub(crate) fn check_step(groups: &Bound<'_, PyList>) -> PyResult<()> {
    let (groups, _rows) = step_groups(groups)?;
    optim8_core::check_step(&groups).map_err(to_python)
}

/// Groups, and the rows of each, which keep their tensors alive.
type Groups<'py> = (Vec<StepGroup>, Vec<Bound<'py, PyTuple>>);

fn step_groups<'py>(groups: &Bound<'py, PyList>) -> PyResult<Groups<'py>> {
    groups.iter().map(|group| step_group(&group)).collect()
}

/// The sum of the squares of all finite elements of all gradients, by the indices of their parameters.
#[pyfunction]
pub(crate) fn sum_of_squares(
    py: Python<'_>,
    grads: &Bound<'_, PyDict>,
    n_threads: usize,
) -> PyResult<f64> {
    let torch = Torch::get(py)?;
    // A list of our own, which keeps the tensors alive.
    let grads = grads.items();
    let describe = |entry: Bound<'_, PyAny>| {
        let (index, grad): (_, Bound<'_, PyAny>) = entry.extract()?;
        torch.describe(&grad, Name::Of("gradient", index, ""))
    };
    let tensors = grads.iter().map(describe).collect::<PyResult<Vec<_>>>()?;
    py.detach(|| optim8_core::sum_of_squares(&tensors, n_threads)).map_err(to_python)
}

/// (rule, hyperparameters, options, rows of tensors)
fn step_group<'py>(group: &Bound<'py, PyAny>) -> PyResult<(StepGroup, Bound<'py, PyTuple>)> {
    let (rule, hyper, options, rows): (
        Bound<'_, PyAny>,
        Bound<'_, PyDict>,
        Bound<'_, PyDict>,
        Bound<'py, PyList>,
    ) = group.extract()?;
    let rule = RuleEntry::named(rule.extract()?).map_err(to_python)?;
    let (hyper, options) = (step_hyper(rule, &hyper)?, step_options(&options)?);
    let mut group = StepGroup::new(rule, hyper, options).map_err(to_python)?;
    // The list may change while we look at what is in it.
    let rows = rows.to_tuple();
    put_rows(&mut group, rule, &rows)?;
    Ok((group, rows))
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
        stochastic_params: item(options, "stochastic_params")?.extract()?,
        seed: item(options, "seed")?.extract()?,
    })
}

fn item<'py>(dict: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    dict.get_item(name)?.ok_or_else(|| PyValueError::new_err(format!("missing '{name}'")))
}

/// Puts parameters into a group, from rows of (index, parameter, gradient, step, the rule's scalars ...,
/// states ...).
fn put_rows(group: &mut StepGroup, rule: &RuleEntry, rows: &Bound<'_, PyTuple>) -> PyResult<()> {
    let torch = Torch::get(rows.py())?;
    let [full, quantized] =
        [false, true].map(|quantized| rule.names(quantized).collect::<Vec<_>>());
    group.reserve(rows.len());
    let mut tensors = vec![];
    for (at, row) in rows.iter_borrowed().enumerate() {
        torch.prefetch(rows, at)?;
        let row = row.cast::<PyTuple>()?;
        let index = row.get_borrowed_item(0)?.extract()?;
        let names = if row.len() == 3 + quantized.len() { &quantized } else { &full };
        // With another number of states than the rule has, which one is which is not known; the core will
        // refuse them.
        let mut names = names.iter().chain(core::iter::repeat(&("surplus state", "")));
        tensors.clear();
        for (at, tensor) in row.iter_borrowed().skip(1).enumerate() {
            let described = match at {
                0 => torch.describe_view(&tensor, Name::Param(index)),
                1 => torch.describe_view(&tensor, Name::Of("gradient", index, "")),
                _ => {
                    let (what, suffix) = names.next().expect("they go on for ever");
                    torch.describe(&tensor, Name::Of(what, index, suffix))
                }
            };
            tensors.push(described?);
        }
        group.push(index, &mut tensors).map_err(to_python)?;
    }
    Ok(())
}
