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
use optim8_core::{Dtype, Name, Tensor, prefetch};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};

/// Fills in the description of a tensor; 0, or -1 with a Python exception set.
type Describe = unsafe extern "C" fn(tensor: *mut c_void, to: *mut DLTensor) -> c_int;

/// A class's way of describing its tensors.
pub(crate) struct Exchange {
    class: Py<PyType>,
    describe: Describe,
}

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
        let size: usize = class.getattr("__basicsize__").ok()?.extract().ok()?;
        if size < size_of::<(ffi::PyObject, [*const u8; N_WORDS])>() {
            return None;
        }
        Some(Self { class: class.clone().unbind(), describe })
    }

    /// Asks for what describing a tensor will read, which mostly is in no cache.
    ///
    /// An object of torch's class holds where the tensor's own structure lies, in one of the words that follow
    /// what all objects begin with. Which one differs between versions of torch, so all are taken for it:
    /// asking for memory at what is no address does no harm.
    pub(crate) fn prefetch(&self, tensor: &Bound<'_, PyAny>) {
        let (object, class) = (tensor.as_ptr(), self.class.as_ptr());
        // SAFETY: both are objects that we hold references to, the second one a class.
        if unsafe { ffi::PyObject_TypeCheck(object, class.cast()) } == 0 {
            return;
        }
        // SAFETY: an object of this class, or of one made from it, has these words (see `of`), and
        // nothing writes to them while we hold the interpreter.
        let words = unsafe { object.add(1).cast::<[*const u8; N_WORDS]>().read() };
        words.into_iter().for_each(|address| prefetch(address, N_BYTES));
    }

    /// Describes a tensor, if the class can and we can use it: not one that is sparse, on another
    /// device, of another dtype, or no tensor at all. Why not is for others to find out.
    pub(crate) fn describe(&self, tensor: &Bound<'_, PyAny>, name: Name) -> Option<Tensor> {
        let mut found = MaybeUninit::<DLTensor>::uninit();
        // SAFETY: torch's function checks whether it was given a tensor; we hold a reference to it, and
        // the interpreter; and there is room for a `DLTensor`.
        if unsafe { (self.describe)(tensor.as_ptr().cast(), found.as_mut_ptr()) } != 0 {
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
        let (shape, strides) =
            unsafe { (numbers(found.shape, found.ndim)?, numbers(found.strides, found.ndim)?) };
        let data = found.data.cast::<u8>().wrapping_add(found.byte_offset as usize);
        let shape = shape.iter().map(|&len| len as usize).collect();
        let strides = strides.iter().map(|&stride| stride as isize).collect();
        // SAFETY: `tensor.rs` says why.
        unsafe { Tensor::new(name, dtype, data, shape, Some(strides)) }.ok()
    }
}

/// Words of an object of torch's class, one of which says where the tensor's own structure lies.
const N_WORDS: usize = 2;

/// Bytes of that structure, about.
const N_BYTES: usize = 192;

const NAME: Option<&core::ffi::CStr> = Some(c"dlpack_exchange_api");

/// `ndim` numbers at an address, which may be null if there are none.
///
/// # Safety
///
/// They are there while the slice lives, and nothing writes to them.
unsafe fn numbers<'a>(at: *const i64, ndim: i32) -> Option<&'a [i64]> {
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
