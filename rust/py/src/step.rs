//! The step: all tensors of all groups in one call.

use crate::error::to_python;
use crate::quant::PyCodec;
use crate::tensor::Torch;
use optim8_core::{Name, Options, RULES, RuleEntry, StepGroup, StepTensors};
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
    let mut groups = step_groups(groups)?;
    if let Some(factors) = factors {
        let tensors: Vec<_> = groups.iter_mut().flat_map(|group| &mut group.tensors).collect();
        if tensors.len() != factors.len() {
            return Err(PyValueError::new_err(format!(
                "{} factors, expected one for each of {} parameters",
                factors.len(),
                tensors.len()
            )));
        }
        for (tensors, factor) in tensors.into_iter().zip(factors) {
            tensors.factor = factor;
        }
    }
    py.detach(|| optim8_core::step(&groups, n_threads)).map_err(to_python)
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
    let groups = step_groups(groups)?;
    py.detach(|| optim8_core::step_lengths(&groups, write_states, n_threads)).map_err(to_python)
}

/// Raises what `step` would raise.
#[pyfunction]
pub(crate) fn check_step(groups: &Bound<'_, PyList>) -> PyResult<()> {
    optim8_core::check_step(&step_groups(groups)?).map_err(to_python)
}

fn step_groups(groups: &Bound<'_, PyList>) -> PyResult<Vec<StepGroup>> {
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
    let describe = |(index, grad): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        torch.describe(&grad, Name::Of("gradient", index.extract()?, ""))
    };
    let tensors = grads.iter().map(describe).collect::<PyResult<Vec<_>>>()?;
    py.detach(|| optim8_core::sum_of_squares(&tensors, n_threads)).map_err(to_python)
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
        tensors: step_tensors(rule, &tensors)?,
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
        stochastic_params: item(options, "stochastic_params")?.extract()?,
        seed: item(options, "seed")?.extract()?,
    })
}

fn item<'py>(dict: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    dict.get_item(name)?.ok_or_else(|| PyValueError::new_err(format!("missing '{name}'")))
}

/// How many parameters before it is described, the tensors of one are asked for.
const N_AHEAD: usize = 2;

/// A list of (index, parameter, gradient, step, the rule's scalars ..., states ...)
fn step_tensors(rule: &RuleEntry, rows: &Bound<'_, PyList>) -> PyResult<Vec<StepTensors>> {
    let torch = Torch::get(rows.py())?;
    let n_scalars = 1 + rule.scalars.len();
    let [full, quantized] = [false, true].map(|quantized| names(rule, quantized));
    let all = rows.iter().enumerate().map(|(at, row)| {
        if at + N_AHEAD < rows.len()
            && let Ok(ahead) = rows.get_item(at + N_AHEAD)?.cast::<PyTuple>()
        {
            torch.prefetch(ahead.iter_borrowed());
        }
        let row = row.cast::<PyTuple>()?;
        let names = if row.len() == 3 + quantized.len() { &quantized } else { &full };
        // With another number of states than the rule has, which one is which is not known; the core
        // will refuse them.
        let names = names.iter().chain(core::iter::repeat(&("surplus state", "")));
        let mut row = row.iter_borrowed();
        let mut next = || row.next().ok_or_else(|| PyValueError::new_err("incomplete tensors"));
        let (index, param, grad) = (next()?.extract()?, next()?, next()?);
        let param = torch.describe_view(&param, Name::Param(index))?;
        let grad = torch.describe_view(&grad, Name::Of("gradient", index, ""))?;
        let mut others = row.zip(names).map(|(tensor, &(what, suffix))| {
            torch.describe(&tensor, Name::Of(what, index, suffix))
        });
        let scalars = others.by_ref().take(n_scalars).collect::<PyResult<_>>()?;
        let states = others.collect::<PyResult<_>>()?;
        Ok(StepTensors { index, param, grad, scalars, states, factor: 1.0 })
    });
    all.collect()
}

/// What the scalars and states of a parameter are called, if these are kept so.
fn names(rule: &RuleEntry, quantized: bool) -> Vec<(&'static str, &'static str)> {
    let scalars = core::iter::once(&"step").chain(rule.scalars).map(|&scalar| (scalar, ""));
    scalars.chain(rule.tensors(quantized).map(|(state, part)| (state, part.suffix()))).collect()
}
