//! The memory of this process, and its limit: that of its cgroups, version 2 or 1, or of the machine.

use std::{fs, path::Path};

/// Returns the resident memory in bytes. `root` is the folder with `proc`.
pub(crate) fn resident(root: &Path) -> Option<u64> {
    kibibytes(&root.join("proc/self/status"), "VmRSS:")
}

/// Returns the smallest limit in bytes. `root` is the folder with `proc` and `sys`.
pub(crate) fn limit(root: &Path) -> Option<u64> {
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().flat_map(|line| cgroup_limits(root, line));
    limits.chain(machine(root)).min()
}

/// The limits of a cgroup and of all above it. The line is `hierarchy:controllers:path`; version 2 has no controllers.
fn cgroup_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        names if names.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    // A container may see its own cgroup as the root of the mount, while the path is that of the host.
    let cgroups = Path::new(path).ancestors().map(|path| path.strip_prefix("/").unwrap_or(path));
    let limit = |cgroup: &Path| fs::read_to_string(root.join(mount).join(cgroup).join(file)).ok()?.trim().parse().ok();
    cgroups.filter_map(limit).collect()
}

/// The memory of the machine.
fn machine(root: &Path) -> Option<u64> {
    kibibytes(&root.join("proc/meminfo"), "MemTotal:")
}

/// The bytes of a line such as `VmRSS:      1234 kB`.
fn kibibytes(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(number.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder with these files, removed on drop.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("memory-limit-{}-{name}", std::process::id()));
            let meminfo = ("proc/meminfo", "MemTotal:        8000 kB\nMemFree:          100 kB\n");
            for (path, text) in files.iter().chain([&meminfo]) {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
                fs::write(path, text).expect("a writable file");
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn resident_memory_is_read() {
        let root = Root::new("resident", &[("proc/self/status", "Name:\ta\nVmHWM:\t  900 kB\nVmRSS:\t  800 kB\n")]);
        assert_eq!(resident(&root.0), Some(800 * 1024));
        assert!(resident(Path::new("/")).is_some_and(|bytes| bytes > 1 << 20), "this process");
    }

    #[test]
    fn smallest_cgroup_above_is_the_limit() {
        let cgroup = ("proc/self/cgroup", "0::/pod/service\n");
        let (own, above) = ("sys/fs/cgroup/pod/service/memory.max", "sys/fs/cgroup/pod/memory.max");
        let root = Root::new("v2", &[cgroup, (own, "max\n"), (above, "4096000\n")]);
        assert_eq!(limit(&root.0), Some(4_096_000));
        let root = Root::new("v2-own", &[cgroup, (own, "1000\n"), (above, "4096000\n")]);
        assert_eq!(limit(&root.0), Some(1000));
    }

    #[test]
    fn container_sees_its_cgroup_as_root() {
        let files = [("proc/self/cgroup", "0::/pod/service\n"), ("sys/fs/cgroup/memory.max", "2048\n")];
        assert_eq!(limit(&Root::new("container", &files).0), Some(2048));
    }

    #[test]
    fn cgroup_v1_is_read() {
        let cgroup = ("proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/a\n");
        let files = [cgroup, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n")];
        assert_eq!(limit(&Root::new("v1", &files).0), Some(3000));
        let unlimited = [cgroup, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(limit(&Root::new("v1-max", &unlimited).0), Some(8000 * 1024), "the machine's memory");
    }

    #[test]
    fn without_cgroup_the_machine_is_the_limit() {
        assert_eq!(limit(&Root::new("none", &[]).0), Some(8000 * 1024));
        assert!(limit(Path::new("/")).is_some_and(|limit| limit > 0), "this machine");
    }
}
