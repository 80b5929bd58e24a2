//! Every way in which a call can be wrong: one variant each, with the name and the shape of what
//! was found and what was expected. The binding turns them into Python's exceptions in one place.

/// The result of a fallible call.
pub type Result<T> = core::result::Result<T, Error>;

/// What was wrong with a call. Nothing has been written when one is returned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("block_size must be a power of two from 32 to 4096, found {found}")]
    BlockSize { found: usize },

    #[error("unknown codec '{found}': expected one of {expected}")]
    CodecName { found: String, expected: String },

    #[error("codebook '{name}' must have 256 values, found {found}")]
    CodebookLength { name: String, found: usize },

    #[error(
        "codebook '{name}' must be sorted, finite and hold 0 once and 1 as its largest value, and begin at -1 or above (at 0 if it is the unsigned one); value {index} is {found}"
    )]
    CodebookValue { name: String, index: usize, found: f64 },

    #[error("unknown rule '{found}': expected one of {expected}")]
    RuleName { found: String, expected: String },

    #[error("rule '{rule}' takes {expected} hyperparameters, found {found}")]
    Hyper { rule: &'static str, found: usize, expected: usize },

    #[error("{variable}={found} is not available on this CPU: expected one of {available}",
        variable = crate::Level::VARIABLE)]
    Level { found: String, available: String },

    #[error("{tensor}: dtype {found} where {expected} was expected")]
    Dtype { tensor: String, found: String, expected: String },

    #[error("{tensor}: shape {found:?} where {expected:?} was expected")]
    Shape { tensor: String, found: Vec<usize>, expected: Vec<usize> },

    #[error(
        "{tensor}: {found} scalars and states where {full} (full) or {quantized} (codes and scales) were expected"
    )]
    StateCount { tensor: String, found: usize, full: usize, quantized: usize },

    #[error("{found} factors, expected one for each of {expected} parameters")]
    FactorCount { found: usize, expected: usize },

    #[error("{tensor}: must be contiguous, found strides {found:?} for shape {shape:?}")]
    NotContiguous { tensor: String, found: Vec<isize>, shape: Vec<usize> },

    #[error("{tensor}: must begin at a multiple of {size} bytes, found address {found:#x}")]
    Unaligned { tensor: String, found: usize, size: usize },

    #[error(
        "{tensor}: null data pointer for {n_elements} elements, as of a tensor whose storage was emptied, or without memory of its own (DTensor, for one), which is not supported"
    )]
    Null { tensor: String, n_elements: usize },

    #[error(
        "{tensor}: more than one element refers to a single memory location, so it cannot be updated in place"
    )]
    SelfOverlap { tensor: String },

    #[error("{first} and {second} share memory, and at least one of them is written")]
    Alias { first: String, second: String },
}
