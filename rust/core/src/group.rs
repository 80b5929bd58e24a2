//! What a step is given: groups of parameters, each of which is checked when it is put in.
//!
//! A step may have thousands of small tensors, and what is known of all of them does not stay in the nearest
//! caches from one pass over them to the next. So there is one pass: a parameter's tensors are checked
//! as soon as they are described, and what is kept of most of them is where they lie (`flat.rs`).

use crate::alias::{self, Access};
use crate::element::Dtype;
use crate::error::{Error, Result};
use crate::flat::Flat;
use crate::layout::Layout;
use crate::rules::{Part, RuleEntry};
use crate::simd::prefetch;
use crate::step::Options;
use crate::tensor::{Name, Tensor};
use core::ops::Range;
use std::borrow::Cow;

/// Parameters that share a rule and its options.
pub struct StepGroup {
    pub(crate) rule: &'static RuleEntry,
    /// The rule's hyperparameters, in its order.
    pub(crate) hyper: Vec<f64>,
    pub(crate) options: Options,
    rows: Vec<Row>,
    /// The scalars and states of all parameters.
    flats: Vec<Flat>,
}

/// A parameter, with where its scalars and states are among those of its group.
struct Row {
    index: u64,
    layout: Layout,
    quantized: bool,
    param: Tensor,
    grad: Tensor,
    flats: Range<usize>,
}

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
    pub(crate) scalars: &'a [Flat],
    /// Those of `RuleEntry::tensors`.
    pub(crate) states: &'a [Flat],
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
        Ok(Self { rule, hyper, options, rows: vec![], flats: vec![] })
    }

    /// Makes room for so many parameters more.
    pub fn reserve(&mut self, n_params: usize) {
        self.rows.reserve(n_params);
        self.flats.reserve(n_params * self.rule.names(true).count());
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
        let first = self.flats.len();
        let (layout, quantized) = self.check(index, tensors)?;
        let flats = first..self.flats.len();
        let mut tensors = tensors.drain(..);
        let mut next = || tensors.next().expect("as many as were checked");
        let (param, grad) = (next(), next());
        self.rows.push(Row { index, layout, quantized, param, grad, flats });
        Ok(())
    }

    /// How many parameters there are.
    pub(crate) fn n_params(&self) -> usize {
        self.rows.len()
    }

    /// All parameters.
    pub(crate) fn params(&self) -> impl Iterator<Item = StepParam<'_>> {
        self.rows.iter().map(|&Row { index, layout, quantized, ref param, ref grad, ref flats }| {
            let (scalars, states) = self.flats[flats.clone()].split_at(self.rule.n_scalars());
            StepParam { index, layout, quantized, param, grad, scalars, states }
        })
    }

    /// Checks the tensors of a parameter; puts down where scalars and states lie (which belongs to no row if
    /// there is an error), and returns its blocks, and whether its states are quantized.
    fn check(&mut self, index: u64, tensors: &[Tensor]) -> Result<(Layout, bool)> {
        let [full, quantized] = [false, true].map(|quantized| self.rule.names(quantized).count());
        let found = tensors.len().saturating_sub(2);
        let (param, grad, others) = match tensors {
            [param, grad, others @ ..] if found == full || found == quantized => {
                (param, grad, others)
            }
            _ => {
                let tensor = Name::Param(index).to_string();
                return Err(Error::StateCount { tensor, found, full, quantized });
            }
        };
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
        let (scalars, states) = others.split_at(self.rule.n_scalars());
        for scalar in scalars {
            scalar.expect_dtype(Dtype::Float32)?;
            let flat = scalar.expect_flat()?;
            if flat.n_elements != 1 {
                scalar.expect_shape(&[])?;
            }
            // It is the first to be read when the step begins.
            prefetch(flat.address_of(0), 1);
            self.flats.push(flat);
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
            self.flats.push(state.expect_flat_of(dtype, shape)?);
        }
        Ok((layout, quantized))
    }
}

/// A tensor of a step: its group, its row there, and its number in the row, where scalars and states follow the
/// gradient. Thousands of these are sorted, so they are small.
type Which = [u32; 3];

/// The number of a parameter in its row, and that of its gradient.
const PARAM: u32 = 0;
const GRAD: u32 = 1;

/// Requires of all parameters of a step together that no tensor which is written shares memory with another.
pub(crate) fn check_apart(groups: &[StepGroup]) -> Result<()> {
    let n_tensors = groups.iter().map(|group| 2 * group.rows.len() + group.flats.len()).sum();
    let mut accesses = Vec::with_capacity(n_tensors);
    for (group_number, group) in (0..).zip(groups) {
        for (row_number, row) in (0..).zip(&group.rows) {
            let mut put = |addresses, number: u32| {
                let key: Which = [group_number, row_number, number];
                accesses.push(Access { addresses, written: number != GRAD, key });
            };
            put(row.param.addresses(), PARAM);
            put(row.grad.addresses(), GRAD);
            for (number, flat) in (GRAD + 1..).zip(&group.flats[row.flats.clone()]) {
                put(flat.addresses(), number);
            }
        }
    }
    alias::check(accesses, |[group, row, number]| {
        let group = &groups[group as usize];
        let row = &group.rows[row as usize];
        match number {
            PARAM => Cow::Borrowed(&row.param),
            GRAD => Cow::Borrowed(&row.grad),
            _ => {
                let other = (number - GRAD) as usize - 1;
                let (what, suffix) = group.rule.names(row.quantized).nth(other).expect("a name");
                let flat = group.flats[row.flats.start + other];
                Cow::Owned(Tensor::of_flat(Name::Of(what, row.index, suffix), flat))
            }
        }
    })
}
