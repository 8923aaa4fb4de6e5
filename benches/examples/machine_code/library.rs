//! Shared libraries, and where their code is.

use std::ffi::{CStr, CString, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use anyhow::{Context, Result, bail};

/// A library that is open.
pub(crate) struct Library {
    handle: NonNull<c_void>,
    path: PathBuf,
}

impl Library {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a C string. What runs when it is loaded is what whoever named the library wants.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let Some(handle) = NonNull::new(handle) else {
            // SAFETY: the error of the call before, a C string.
            let why = unsafe { CStr::from_ptr(libc::dlerror()) };
            bail!("{}: {}", path.display(), why.to_string_lossy());
        };
        let path = path.canonicalize()?;
        Ok(Self { handle, path })
    }

    /// Address of a function.
    pub(crate) fn function(&self, name: &str) -> Result<*const ()> {
        let symbol = CString::new(name)?;
        // SAFETY: an open library and a C string.
        let at = unsafe { libc::dlsym(self.handle.as_ptr(), symbol.as_ptr()) };
        let at = NonNull::new(at);
        let at = at.with_context(|| format!("{} has no {name}", self.path.display()))?;
        Ok(at.as_ptr().cast_const().cast())
    }

    /// Where its code is.
    pub(crate) fn code(&self) -> Result<Vec<Range<usize>>> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let path = self.path.to_str().context("a path in UTF-8")?;
        let code = maps.lines().filter(|line| line.ends_with(path));
        let code = code.filter(|line| line.split_ascii_whitespace().nth(1) == Some("r-xp"));
        let range = |line: &str| {
            let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
            let hex = |text| usize::from_str_radix(text, 16).ok();
            Some(hex(start)?..hex(end)?)
        };
        Ok(code.filter_map(range).collect())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: open, and nobody has what `function` gave any more.
        unsafe { libc::dlclose(self.handle.as_ptr()) };
    }
}
