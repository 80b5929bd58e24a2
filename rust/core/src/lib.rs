//! Block-wise 8-bit optimizer states.
//!
//! The crate computes; it keeps nothing of its callers', knows no Python and does no I/O. Read it from the bottom:
//!
//! ```text
//! error <- simd <- element <- rounding <- format <- block <- effect, wide <-+
//!        real <-+                     decoding <-+  layout <---------------+- update
//!             ^------------------------------------- rule <----------------+
//!
//! update <- step <- kernel <- rules <- group <- api -> plan, pool, alias, tensor -> strided, flat
//! ```
//!
//! - [`Layout`]: where blocks begin and end.
//! - [`Codec`]: how a normalized value becomes a byte (`format/`).
//! - `rules/`: each optimizer's formula, and nothing else; [`RULES`] lists them.
//! - `simd/`: the one interface to the instruction sets; [`Level`] is the one in use.
//! - [`step()`], [`quantize()`], [`dequantize()`]: the calls. All tensors are checked before any is written.
//! - [`prefer_large_pages`]: for memory that their results will be written to.

mod alias;
mod api;
mod block;
mod decoding;
mod effect;
mod element;
mod error;
mod flat;
mod format;
mod group;
mod kernel;
mod layout;
mod pages;
mod plan;
pub mod pool;
mod real;
mod rounding;
mod rule;
mod rules;
mod simd;
mod step;
mod strided;
mod tensor;
mod update;
mod wide;

pub use api::{QuantizeCall, check_step, dequantize, quantize, step, step_lengths, sum_of_squares};
pub use element::Dtype;
pub use error::{Error, Result};
pub use format::{Codebook, Codec};
pub use group::StepGroup;
pub use layout::{Layout, Shape};
pub use pages::prefer_large_pages;
pub use rule::{Kind, State};
pub use rules::{Part, RULES, RuleEntry};
pub use simd::{Level, prefetch};
pub use step::Options;
pub use tensor::{Name, Tensor};
