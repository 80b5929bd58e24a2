//! The momentum of Muon (Jordan 2024), as `torch.optim.Muon` defines it: what its optimizer then makes
//! orthogonal and steps by, in Python, is written in place of the "parameter".

use crate::real::Real;
use crate::rule::{Rule, State, lerp, named};

/// The momentum of Muon.
#[derive(Clone, Copy)]
pub(super) struct Muon {
    momentum: f64,
    nesterov: bool,
}

impl Rule<1> for Muon {
    const STATES: [State; 1] = [State::signed("momentum_buffer")];
    const HYPER: &'static [&'static str] = &["momentum", "nesterov"];

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [momentum, nesterov] = named(hyper);
        Self { momentum, nesterov: nesterov != 0.0 }
    }

    #[inline(always)]
    fn update<T: Real>(&self, _param: T, grad: T, [buffer]: [T; 1]) -> (T, [T; 1]) {
        let buffer = lerp(buffer, grad, 1.0 - self.momentum);
        (if self.nesterov { lerp(grad, buffer, self.momentum) } else { buffer }, [buffer])
    }
}
