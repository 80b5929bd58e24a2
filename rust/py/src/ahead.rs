//! Asking for what describing tensors will read, before it is read.
//!
//! A step of a thousand small tensors begins with some seven thousand objects, each of which leads to two
//! structures of torch's, and since the last step all of that has left the caches. To wait for it piece by
//! piece would take longer than to describe the tensors. So it is asked for some parameters ahead: first the
//! objects, then what they lead to, which only tells its address once it has come.

use core::ptr::with_exposed_provenance;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::Relaxed;
use optim8_core::prefetch;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

/// Where to find the structures behind the objects of torch's class. Versions of torch differ in this.
pub(crate) struct Structures {
    class: Py<PyType>,
    /// The word of an object that is the address of the tensor's own structure.
    tensor_word: usize,
    /// The word of that structure which is the address of its storage's.
    storage_word: usize,
}

/// A step on the way from an object to its tensor's memory.
#[derive(Clone, Copy)]
enum Structure {
    Object,
    Tensor,
    Storage,
}

/// How many parameters before they are described each structure is asked for.
const AHEAD: [(usize, Structure); 3] =
    [(6, Structure::Object), (4, Structure::Tensor), (2, Structure::Storage)];

/// Bytes of a word.
const WORD: usize = size_of::<usize>();

/// Bytes of an object up to its word of these in any version, and what it may begin after the beginning of a
/// cache line.
const OBJECT_BYTES: usize = 32 + 48;

/// Bytes of a tensor's structure, and the same.
const TENSOR_BYTES: usize = 184 + 48;

/// Bytes of a storage's structure that are read, and the same.
const STORAGE_BYTES: usize = 64 + 48;

/// Words of a tensor's structure among which that of its storage is, in any version.
const N_SEARCHED: usize = 8;

impl Structures {
    /// Those of a class, as one of its tensors shows them; none if they are not where they are looked for.
    pub(crate) fn of(class: &Bound<'_, PyType>) -> PyResult<Option<Self>> {
        let tensor = class.call0()?;
        let address: usize = tensor.getattr("_cdata")?.extract()?;
        let storage = tensor.call_method0("untyped_storage")?.getattr("_cdata")?.extract()?;
        let size: usize = class.getattr("__basicsize__")?.extract()?;
        // SAFETY: an object is as long as its class says.
        let tensor_word = unsafe { find(tensor.as_ptr().cast(), size / WORD, address) };
        let Some(tensor_word) = tensor_word else { return Ok(None) };
        // SAFETY: the object holds the address that torch says is that of the tensor's structure, which is
        // longer in every version.
        let storage_word = unsafe { find(with_exposed_provenance(address), N_SEARCHED, storage) };
        let class = class.clone().unbind();
        Ok(storage_word.map(|storage_word| Self { class, tensor_word, storage_word }))
    }

    /// Told that the objects of row `at` are described now, asks for some of what those of later rows lead to.
    pub(crate) fn prefetch(&self, rows: &Bound<'_, PyTuple>, at: usize) -> PyResult<()> {
        for (n_ahead, structure) in AHEAD {
            if at + n_ahead < rows.len()
                && let Ok(row) = rows.get_borrowed_item(at + n_ahead)?.cast::<PyTuple>()
            {
                row.iter_borrowed().for_each(|object| self.ask(&object, structure));
            }
        }
        Ok(())
    }

    fn ask(&self, object: &Bound<'_, PyAny>, structure: Structure) {
        let object = object.as_ptr();
        if let Structure::Object = structure {
            return prefetch(object, OBJECT_BYTES);
        }
        // SAFETY: both are objects that are referred to, the second one a class.
        if unsafe { ffi::PyObject_TypeCheck(object, self.class.as_ptr().cast()) } == 0 {
            return;
        }
        // SAFETY: an object of this class, or of one made from it, has this word, and nothing writes to it
        // while we hold the interpreter.
        let tensor = unsafe { object.cast::<*const AtomicPtr<u8>>().add(self.tensor_word).read() };
        if let Structure::Tensor = structure {
            return prefetch(tensor, TENSOR_BYTES);
        }
        if !tensor.is_null() {
            // SAFETY: the word was the address of a tensor's structure, which has this one.
            let storage = unsafe { &*tensor.add(self.storage_word) };
            // Torch may write it in a thread that does not hold the interpreter.
            prefetch(storage.load(Relaxed), STORAGE_BYTES);
        }
    }
}

/// The place among so many words of one, which is not zero.
///
/// # Safety
///
/// They can be read, and nothing writes to them meanwhile.
unsafe fn find(words: *const usize, n_words: usize, word: usize) -> Option<usize> {
    // SAFETY: as this function.
    let found = (0..n_words).find(|&at| unsafe { words.add(at).read() } == word);
    found.filter(|_| word != 0)
}
