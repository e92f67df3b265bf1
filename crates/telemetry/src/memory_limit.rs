//! The memory limit of this process: that of its cgroups, version 2 or 1, or of the machine.

use std::{fs, path::Path};

/// Returns the smallest limit in bytes. `root` is the folder with `proc` and `sys`.
pub(crate) fn memory_limit(root: &Path) -> Option<u64> {
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
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
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
    fn smallest_cgroup_above_is_the_limit() {
        let cgroup = ("proc/self/cgroup", "0::/pod/service\n");
        let (own, above) = ("sys/fs/cgroup/pod/service/memory.max", "sys/fs/cgroup/pod/memory.max");
        let root = Root::new("v2", &[cgroup, (own, "max\n"), (above, "4096000\n")]);
        assert_eq!(memory_limit(&root.0), Some(4_096_000));
        let root = Root::new("v2-own", &[cgroup, (own, "1000\n"), (above, "4096000\n")]);
        assert_eq!(memory_limit(&root.0), Some(1000));
    }

    #[test]
    fn container_sees_its_cgroup_as_root() {
        let files = [("proc/self/cgroup", "0::/pod/service\n"), ("sys/fs/cgroup/memory.max", "2048\n")];
        assert_eq!(memory_limit(&Root::new("container", &files).0), Some(2048));
    }

    #[test]
    fn cgroup_v1_is_read() {
        let cgroup = ("proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/a\n");
        let files = [cgroup, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n")];
        assert_eq!(memory_limit(&Root::new("v1", &files).0), Some(3000));
        let unlimited = [cgroup, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(memory_limit(&Root::new("v1-max", &unlimited).0), Some(8000 * 1024), "the machine's memory");
    }

    #[test]
    fn without_cgroup_the_machine_is_the_limit() {
        assert_eq!(memory_limit(&Root::new("none", &[]).0), Some(8000 * 1024));
        assert!(memory_limit(Path::new("/")).is_some_and(|limit| limit > 0), "this machine");
    }
}
