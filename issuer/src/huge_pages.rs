//! Decides whether the memory that passwords are hashed in lies in huge pages: a hash is a fifth faster there, because the
//! processor looks up a few addresses of pages instead of thousands.
//!
//! Where the kernel gives huge pages only to who asks (`madvise`, the default of most distributions), glibc's allocator asks
//! for them when the environment says so at the start of the program. So the program starts itself again, in its own place,
//! with that in its environment.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Where the kernel says to whom it gives huge pages.
const KERNEL_SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// What glibc is told by.
const VARIABLE: &str = "GLIBC_TUNABLES";
const TUNABLE: &str = "glibc.malloc.hugetlb=1";

/// Starts the program again with huge pages, and does not come back; or comes back when there is nothing to be gained, when
/// the variable is set (whoever set it decides), or when it cannot be done. Has to be called before anything else is begun.
pub fn start_again_with_huge_pages() {
    let kernel = std::fs::read_to_string(KERNEL_SETTING).unwrap_or_default();
    if !is_wanted(&kernel, env::var_os(VARIABLE).as_deref()) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
    // Comes back only with an error; then it goes on with small pages.
    drop(Command::new(program).arg0(name).args(arguments).env(VARIABLE, TUNABLE).exec());
}

/// Whether there is something to be gained, and nobody decided otherwise.
fn is_wanted(kernel: &str, set: Option<&OsStr>) -> bool {
    let is_glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    is_glibc && kernel.contains("[madvise]") && set.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_asked_for_where_they_are_to_be_had_for_asking_and_nobody_decided() {
        let asked = "always [madvise] never\n";
        assert_eq!(is_wanted(asked, None), cfg!(target_env = "gnu"));
        assert!(!is_wanted(asked, Some(OsStr::new(TUNABLE))), "or it would start again for ever");
        assert!(!is_wanted(asked, Some(OsStr::new(""))));
        assert!(!is_wanted("[always] madvise never\n", None), "it has them");
        assert!(!is_wanted("always madvise [never]\n", None) && !is_wanted("", None));
    }
}
