//! Large pages for what the allocator gives. Policy is looked up all over it, and at DASH's scale a look-up in
//! pages of 4 KB waits for page tables too.
//!
//! The C library asks the system for them if `GLIBC_TUNABLES` says so when a program starts
//! (`glibc.malloc.hugetlb`, from 2.35 on), so a program that wants them starts itself once more.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

const TUNABLES: &str = "GLIBC_TUNABLES";
const TUNABLE: &str = "glibc.malloc.hugetlb";
/// Set where it was tried; whoever sets it before does not want it.
const TRIED: &str = "DASHWIRE_LARGE_PAGES";

/// Starts the program anew, with large pages asked for, in the same process. Returns where that is done
/// already, not wanted (`DASHWIRE_LARGE_PAGES=0`), of no use or not possible. To be called first.
pub fn ask_for_large_pages() {
    // Where pages are always large nobody needs to ask, and where they never are nobody is heard.
    let modes = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if std::env::var_os(TRIED).is_some() || !modes.is_ok_and(|modes| modes.contains("[madvise]")) {
        return;
    }
    let Some(tunables) = with_large_pages(std::env::var(TUNABLES).ok().as_deref()) else {
        return;
    };
    let (Ok(program), mut args) = (std::env::current_exe(), std::env::args_os()) else {
        return;
    };
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env(TUNABLES, tunables).env(TRIED, "1");
    // Returns only if it cannot be done, and then the program goes on as it is.
    let _ = command.exec();
}

/// Tunables that ask for them, beside those there are; `None` where those say something of it.
fn with_large_pages(tunables: Option<&str>) -> Option<String> {
    let ours = format!("{TUNABLE}=1");
    match tunables.unwrap_or_default() {
        said if said.contains(TUNABLE) => None,
        "" => Some(ours),
        others => Some(format!("{others}:{ours}")),
    }
}

#[cfg(test)]
mod tests {
    use super::with_large_pages;

    #[test]
    fn other_tunables_stay_and_a_choice_that_was_made_is_kept() {
        let asked = Some("glibc.malloc.hugetlb=1".to_owned());
        assert_eq!(with_large_pages(None), asked);
        assert_eq!(with_large_pages(Some("")), asked);
        let others = "glibc.malloc.tcache_count=0:glibc.cpu.x86_ibt=on";
        let both = with_large_pages(Some(others));
        assert_eq!(both, Some(format!("{others}:glibc.malloc.hugetlb=1")));
        for chosen in ["glibc.malloc.hugetlb=0", "a.b=1:glibc.malloc.hugetlb=2"] {
            assert_eq!(with_large_pages(Some(chosen)), None);
        }
    }
}
