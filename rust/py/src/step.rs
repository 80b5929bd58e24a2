//! The step: all tensors of all groups in one call.

use crate::error::to_python;
use crate::known::Known;
use crate::quant::PyCodec;
use crate::tensor::{describe_all, glance};
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
/// `known` keeps what it learns of parameters and states for the next step. `factors` has one for each
/// parameter, by which its update is multiplied.
#[pyfunction]
#[pyo3(signature = (groups, n_threads, known, factors=None))]
pub(crate) fn step(
    py: Python<'_>,
    groups: &Bound<'_, PyList>,
    n_threads: usize,
    known: &Known,
    factors: Option<Vec<f64>>,
) -> PyResult<usize> {
    let mut groups = step_groups(groups, known)?;
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
    known.end_step();
    py.detach(|| optim8_core::step(&groups, n_threads)).map_err(to_python)
}

/// Measures the updates that `step` would make; returns the number of blocks skipped, and the length of
/// each parameter's update. Parameters are not written; states are if `write_states`.
#[pyfunction]
pub(crate) fn step_lengths(
    py: Python<'_>,
    groups: &Bound<'_, PyList>,
    n_threads: usize,
    known: &Known,
    write_states: bool,
) -> PyResult<(usize, Vec<f64>)> {
    let groups = step_groups(groups, known)?;
    if write_states {
        known.end_step();
    }
    py.detach(|| optim8_core::step_lengths(&groups, write_states, n_threads)).map_err(to_python)
}

/// Raises what `step` would raise.
#[pyfunction]
pub(crate) fn check_step(groups: &Bound<'_, PyList>, known: &Known) -> PyResult<()> {
    optim8_core::check_step(&step_groups(groups, known)?).map_err(to_python)
}

fn step_groups(groups: &Bound<'_, PyList>, known: &Known) -> PyResult<Vec<StepGroup>> {
    groups.iter().map(|group| step_group(&group, known)).collect()
}

/// The sum of the squares of all elements of all gradients, by the indices of their parameters.
#[pyfunction]
pub(crate) fn sum_of_squares(
    py: Python<'_>,
    grads: &Bound<'_, PyDict>,
    n_threads: usize,
) -> PyResult<f64> {
    let indices: Vec<u64> = grads.keys().extract()?;
    let tensors = describe_all(&grads.values(), |i| Name::Of("gradient", indices[i], ""))?;
    py.detach(|| optim8_core::sum_of_squares(&tensors, n_threads)).map_err(to_python)
}

/// (rule, hyperparameters, options, tensors)
fn step_group(group: &Bound<'_, PyAny>, known: &Known) -> PyResult<StepGroup> {
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
        tensors: step_tensors(rule, &tensors, known)?,
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

/// A list of (index, parameter, gradient, step, the rule's scalars ..., states ...)
fn step_tensors(
    rule: &RuleEntry,
    rows: &Bound<'_, PyList>,
    known: &Known,
) -> PyResult<Vec<StepTensors>> {
    let py = rows.py();
    let grads = PyList::empty(py);
    // All tensors but the gradients, which are new at every step.
    let mut others = vec![];
    // The index of each parameter, and which of them are its own.
    let mut params = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        let mut row = row.cast::<PyTuple>()?.iter();
        let mut next = || row.next().ok_or_else(|| PyValueError::new_err("incomplete tensors"));
        let (index, start) = (next()?.extract::<u64>()?, others.len());
        others.push(next()?);
        grads.append(next()?)?;
        others.extend(row);
        params.push((index, start..others.len()));
    }
    let grads = describe_all(&grads, |i| Name::Of("gradient", params[i].0, ""))?;
    let glances = glance(&PyList::new(py, &others)?)?;
    let all = params.into_iter().zip(grads).map(|((index, own), grad)| {
        let n_scalars = 1 + rule.scalars.len();
        let n_states = own.len().saturating_sub(1 + n_scalars);
        let names = || names(rule, n_states, index);
        let (tensors, glances) = (&others[own.clone()], glances.as_ref().map(|all| &all[own]));
        let tensors = known.describe(index, tensors, glances, &grad, names)?;
        let mut tensors = tensors.into_iter();
        let param = tensors.next().expect("a row has a parameter");
        let scalars = tensors.by_ref().take(n_scalars).collect();
        Ok(StepTensors { index, param, grad, scalars, states: tensors.collect(), factor: 1.0 })
    });
    all.collect()
}

/// What a parameter and its other tensors are called. With another number of states than the rule has,
/// which one is which is not known; the core will refuse them.
fn names(rule: &RuleEntry, n_states: usize, index: u64) -> Vec<Name> {
    let quantized = n_states != rule.tensors(false).count();
    let scalars = core::iter::once(&"step").chain(rule.scalars).map(|&scalar| (scalar, ""));
    let states = rule.tensors(quantized).map(|(state, part)| (state, part.suffix()));
    let surplus = core::iter::repeat(("surplus state", ""));
    let others = scalars.chain(states.chain(surplus).take(n_states));
    core::iter::once(Name::Param(index))
        .chain(others.map(|(what, suffix)| Name::Of(what, index, suffix)))
        .collect()
}
