//! What torch tells of a tensor without Python in between.
//!
//! DLPack, the standard by which array libraries share memory, has a table of C functions that a class of
//! tensors may offer as `__dlpack_c_exchange_api__` (since DLPack 1.3; torch's class does since 2026). One
//! of them fills in where a tensor lies. It takes some 100 ns, a tenth of what it takes to ask the tensor
//! for its attributes, and a step of 1000 small tensors needs 7000 answers.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use dlpack_ffi::{
    DLDataTypeCode, DLDeviceType, DLPACK_MAJOR_VERSION, DLPackExchangeAPI, DLPackExchangeAPIHeader,
    DLTensor,
};
use optim8_core::{Dtype, Name, Tensor};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};

/// Fills in the description of a tensor; 0, or -1 with a Python exception set.
type Describe = unsafe extern "C" fn(tensor: *mut c_void, to: *mut DLTensor) -> c_int;

/// A class's way of describing its tensors.
pub(crate) struct Exchange(Describe);

impl Exchange {
    /// That of a class, if it has one that we know how to use.
    pub(crate) fn of(class: &Bound<'_, PyType>) -> Option<Self> {
        let capsule = class.getattr("__dlpack_c_exchange_api__").ok()?;
        let table = capsule.cast::<PyCapsule>().ok()?.pointer_checked(NAME).ok()?;
        // SAFETY: a capsule of this name holds a pointer to a table, which is there for as long as the
        // process, says DLPack, and begins with this in every version.
        let header = unsafe { table.cast::<DLPackExchangeAPIHeader>().as_ref() };
        if header.version.major != DLPACK_MAJOR_VERSION {
            return None;
        }
        // SAFETY: as above; and in this version the table is of this type.
        let table = unsafe { table.cast::<DLPackExchangeAPI>().as_ref() };
        let describe = table.dltensor_from_py_object_no_sync?;
        // Lengths and strides are taken where they are, in 64 bits.
        (size_of::<usize>() == size_of::<i64>()).then_some(Self(describe))
    }

    /// Describes a tensor, if the class can and we can use it: not one that is sparse, on another
    /// device, of another dtype, or no tensor at all. Why not is for others to find out.
    pub(crate) fn describe(&self, tensor: &Bound<'_, PyAny>, name: Name) -> Option<Tensor> {
        let mut found = MaybeUninit::<DLTensor>::uninit();
        // SAFETY: torch's function checks whether it was given a tensor; we hold a reference to it, and
        // the interpreter; and there is room for a `DLTensor`.
        if unsafe { self.0(tensor.as_ptr().cast(), found.as_mut_ptr()) } != 0 {
            PyErr::take(tensor.py());
            return None;
        }
        // SAFETY: it has returned 0, so it has filled it in.
        let found = unsafe { found.assume_init() };
        if found.device.device_type != DLDeviceType::kDLCPU {
            return None;
        }
        let dtype = dtype(&found)?;
        // SAFETY: both point to `ndim` numbers of the tensor, which does not change before this returns:
        // we hold the interpreter.
        let (shape, strides): (&[usize], &[isize]) = unsafe {
            let (shape, strides) = (found.shape.cast(), found.strides.cast());
            (numbers(shape, found.ndim)?, numbers(strides, found.ndim)?)
        };
        let data = found.data.cast::<u8>().wrapping_add(found.byte_offset as usize);
        // SAFETY: `tensor.rs` says why.
        unsafe { Tensor::new(name, dtype, data, shape, Some(strides)) }.ok()
    }
}

const NAME: Option<&core::ffi::CStr> = Some(c"dlpack_exchange_api");

/// `ndim` numbers at an address, which may be null if there are none.
///
/// # Safety
///
/// They are there while the slice lives, and nothing writes to them.
unsafe fn numbers<'a, T>(at: *const T, ndim: i32) -> Option<&'a [T]> {
    match ndim {
        0 => Some(&[]),
        _ if at.is_null() => None,
        // SAFETY: as this function.
        _ => Some(unsafe { core::slice::from_raw_parts(at, usize::try_from(ndim).ok()?) }),
    }
}

fn dtype(tensor: &DLTensor) -> Option<Dtype> {
    let code = DLDataTypeCode(tensor.dtype.code.into());
    match (code, tensor.dtype.bits, tensor.dtype.lanes) {
        (DLDataTypeCode::kDLFloat, 32, 1) => Some(Dtype::Float32),
        (DLDataTypeCode::kDLUInt, 8, 1) => Some(Dtype::UInt8),
        (DLDataTypeCode::kDLBfloat, 16, 1) => Some(Dtype::BFloat16),
        (DLDataTypeCode::kDLFloat, 16, 1) => Some(Dtype::Float16),
        (DLDataTypeCode::kDLFloat, 64, 1) => Some(Dtype::Float64),
        _ => None,
    }
}
