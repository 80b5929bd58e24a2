//! What a step is given: groups of parameters, each of which is checked when it is put in.
//!
//! A step may have thousands of small tensors, and what is known of all of them does not stay in the nearest
//! caches from one pass over them to the next. So there is one pass: a parameter's tensors are checked
//! as soon as they are described, and what is to be compared with all others, where they lie, is put
//! down on the side.

use crate::alias::{self, Access};
use crate::element::Dtype;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::rules::{Part, RuleEntry};
use crate::step::Options;
use crate::tensor::{Name, Tensor};
use core::ops::Range;

/// Parameters that share a rule and its options.
pub struct StepGroup {
    pub(crate) rule: &'static RuleEntry,
    /// The rule's hyperparameters, in its order.
    pub(crate) hyper: Vec<f64>,
    pub(crate) options: Options,
    rows: Vec<Row>,
    /// Of all parameters.
    tensors: Vec<Tensor>,
    addresses: Vec<Range<usize>>,
}

/// A parameter, by where its tensors are among those of its group.
struct Row {
    index: u64,
    layout: Layout,
    quantized: bool,
    tensors: Range<usize>,
}

/// The place of the gradient among the tensors of a parameter, which itself is the first.
const GRAD: usize = 1;

/// How many tensors are no scalars and no states.
const N_FIRST: usize = 2;

/// The checked tensors of a parameter.
pub(crate) struct StepParam<'a> {
    /// Its index in its optimizer.
    pub(crate) index: u64,
    pub(crate) layout: Layout,
    /// Whether states that may be are quantized.
    pub(crate) quantized: bool,
    pub(crate) param: &'a Tensor,
    pub(crate) grad: &'a Tensor,
    /// One float32 each: how many steps there have been, and the rule's scalars.
    pub(crate) scalars: &'a [Tensor],
    /// Those of `RuleEntry::tensors`.
    pub(crate) states: &'a [Tensor],
}

impl StepGroup {
    /// A group of no parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Hyper`] unless there are as many hyperparameters as the rule has.
    pub fn new(rule: &'static RuleEntry, hyper: Vec<f64>, options: Options) -> Result<Self> {
        let (expected, found) = (rule.hyper.len(), hyper.len());
        if found != expected {
            return Err(Error::Hyper { rule: rule.name, found, expected });
        }
        Ok(Self { rule, hyper, options, rows: vec![], tensors: vec![], addresses: vec![] })
    }

    /// Makes room for so many parameters more.
    pub fn reserve(&mut self, n_params: usize) {
        let n_tensors = N_FIRST + self.rule.n_scalars() + self.rule.tensors(true).count();
        self.rows.reserve(n_params);
        self.tensors.reserve(n_params * n_tensors);
        self.addresses.reserve(n_params * n_tensors);
    }

    /// Puts in the parameter of this index in its optimizer, and takes its tensors: the parameter, the
    /// gradient, then one float32 each for how many steps there have been and for the rule's
    /// scalars, and the states in the rule's order, one tensor for each, or codes and scales for each.
    /// All but the gradient are written by a step.
    ///
    /// # Errors
    ///
    /// Any [`Error`] that says what does not fit.
    pub fn push(&mut self, index: u64, tensors: &mut Vec<Tensor>) -> Result<()> {
        let (layout, quantized) = self.check(index, tensors)?;
        let first = self.tensors.len();
        self.addresses.extend(tensors.iter().map(Tensor::addresses));
        self.tensors.append(tensors);
        self.rows.push(Row { index, layout, quantized, tensors: first..self.tensors.len() });
        Ok(())
    }

    /// How many parameters there are.
    pub(crate) fn n_params(&self) -> usize {
        self.rows.len()
    }

    /// All parameters.
    pub(crate) fn params(&self) -> impl Iterator<Item = StepParam<'_>> {
        self.rows.iter().map(|&Row { index, layout, quantized, ref tensors }| {
            let (first, others) = self.tensors[tensors.clone()].split_at(N_FIRST);
            let (scalars, states) = others.split_at(self.rule.n_scalars());
            let (param, grad) = (&first[0], &first[GRAD]);
            StepParam { index, layout, quantized, param, grad, scalars, states }
        })
    }

    /// All tensors, and whether they are written.
    fn accesses(&self) -> impl Iterator<Item = Access<'_>> {
        self.rows.iter().flat_map(|row| {
            row.tensors.clone().enumerate().map(|(at, i)| Access {
                addresses: self.addresses[i].clone(),
                tensor: &self.tensors[i],
                written: at != GRAD,
            })
        })
    }

    /// Checks the tensors of a parameter; returns its blocks, and whether its states are quantized.
    fn check(&self, index: u64, tensors: &[Tensor]) -> Result<(Layout, bool)> {
        let n_scalars = self.rule.n_scalars();
        let [full, quantized] =
            [false, true].map(|quantized| n_scalars + self.rule.tensors(quantized).count());
        let found = tensors.len().saturating_sub(N_FIRST);
        if tensors.len() < N_FIRST || found != full && found != quantized {
            let tensor = Name::Param(index).to_string();
            return Err(Error::StateCount { tensor, found, full, quantized });
        }
        let (param, grad) = (&tensors[0], &tensors[GRAD]);
        let (scalars, states) = tensors[N_FIRST..].split_at(n_scalars);
        param.expect_float()?;
        if self.options.stochastic_params && param.dtype() == Dtype::Float16 {
            return Err(Error::Dtype {
                tensor: param.name().to_string(),
                found: Dtype::Float16.name().to_owned(),
                expected: "bfloat16 or wider to be rounded stochastically".to_owned(),
            });
        }
        param.expect_no_self_overlap()?;
        grad.expect_dtype(param.dtype())?;
        grad.expect_shape(param.shape())?;
        for scalar in scalars {
            scalar.expect_dtype(Dtype::Float32)?;
            scalar.expect_slice()?;
            if scalar.n_elements() != 1 {
                scalar.expect_shape(&[])?;
            }
        }
        let layout = Layout::new(param.shape(), self.options.block_size)?;
        let quantized = found != full;
        for (state, (_, part)) in states.iter().zip(self.rule.tensors(quantized)) {
            let (dtype, shape) = match part {
                Part::Full => (param.dtype().state(), param.shape()),
                Part::Copy => (param.dtype(), param.shape()),
                Part::Codes => (Dtype::UInt8, param.shape()),
                Part::Scales => (Dtype::Float32, &*layout.scales_shape()),
            };
            state.expect_slice_of(dtype, shape)?;
        }
        Ok((layout, quantized))
    }
}

/// Requires of all parameters of a step together that no tensor which is written shares memory with another.
pub(crate) fn check_apart(groups: &[StepGroup]) -> Result<()> {
    alias::check(groups.iter().flat_map(StepGroup::accesses).collect())
}
