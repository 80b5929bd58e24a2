//! The 256 values that codes stand for.

use crate::error::{Error, Result};
use crate::simd::Table;

/// 256 values, of which one is 0 and the largest is 1. All are sorted, but for those of a codec whose codes
/// have a sign bit.
#[derive(Clone, Debug)]
pub struct Codebook {
    table: Box<Table>,
    zero: u8,
}

impl Codebook {
    /// That of a codec of ours.
    pub(crate) fn new(values: [f32; 256]) -> Self {
        let zero = values.iter().position(|&value| value == 0.0).expect("a code of zero");
        Self { table: Box::new(Table::new(values)), zero: zero as u8 }
    }

    /// Checks and keeps a table.
    pub(crate) fn checked(name: &str, values: &[f32]) -> Result<Self> {
        let values: [f32; 256] = values
            .try_into()
            .map_err(|_| Error::CodebookLength { name: name.to_owned(), found: values.len() })?;
        let wrong = |index: usize| Error::CodebookValue {
            name: name.to_owned(),
            index,
            found: f64::from(values[index]),
        };
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(wrong(index));
        }
        if let Some(index) = (1..256).find(|&index| values[index] < values[index - 1]) {
            return Err(wrong(index));
        }
        if values[255] != 1.0 || values[0] < -1.0 {
            return Err(wrong(if values[0] < -1.0 { 0 } else { 255 }));
        }
        let zero = values.partition_point(|&value| value < 0.0);
        // The code after that of zero stands for what is not to become zero.
        if values[zero] != 0.0 || values[zero + 1] == 0.0 {
            return Err(wrong(zero));
        }
        Ok(Self::new(values))
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[f32; 256] {
        &self.table.values
    }

    /// The values, to be looked up.
    #[inline]
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The code of 0.
    #[must_use]
    pub fn zero(&self) -> u8 {
        self.zero
    }
}
