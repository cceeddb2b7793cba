//! What the broker takes from the machine it runs on: the host name and how much memory there is.

use std::fs;
use std::path::Path;

/// The name of this host, or `localhost` where the system does not tell.
pub(crate) fn host_name() -> String {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let names = files.into_iter().filter_map(|file| fs::read_to_string(file).ok());
    let mut names = names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    names.next().unwrap_or_else(|| "localhost".to_owned())
}

/// The memory this process may use, in bytes: that of the machine, or the lowest limit of its
/// control groups (version 1 or 2). None where the system does not tell.
#[must_use]
pub fn machine_memory() -> Option<u64> {
    memory_under(Path::new("/"))
}

fn memory_under(root: &Path) -> Option<u64> {
    let information = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = information.as_deref().and_then(total_memory);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    machine.into_iter().chain(limits).min()
}

/// The first line of meminfo: `MemTotal:       16384256 kB`.
fn total_memory(information: &str) -> Option<u64> {
    let line = information.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The limits of one control group and of those around it. A line is `0::/path` in version 2 and
/// `5:memory:/path` in version 1. Inside a container the path may be that of the host: then the
/// group's own limit is at the top of what can be seen.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (top, file) = match controllers {
        "" => (root.join("sys/fs/cgroup"), "memory.max"),
        names if names.split(',').any(|name| name == "memory") => {
            (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let inner = Path::new(path.trim_start_matches('/'));
    let limit = |group: &Path| fs::read_to_string(top.join(group).join(file)).ok();
    // Without a limit the file says `max`, which is no number.
    inner.ancestors().filter_map(limit).filter_map(|text| text.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A root directory with the given files, gone when dropped.
    struct Root(PathBuf);

    impl Root {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("warren-{}-{name}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:    1000 kB\nMemFree:  1 kB\n");

    #[test]
    fn the_machine_where_no_group_has_a_limit() {
        let group = ("proc/self/cgroup", "0::/a\n");
        let root = Root::with("none", &[MACHINE, group, ("sys/fs/cgroup/a/memory.max", "max\n")]);
        assert_eq!(memory_under(&root.0), Some(1_024_000));
        assert_eq!(memory_under(Path::new("/nonexistent")), None);
    }

    #[test]
    fn the_lowest_limit_of_the_groups_around() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "5000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "9000\n"),
        ];
        assert_eq!(memory_under(&Root::with("two", &files).0), Some(5_000));
    }

    #[test]
    fn groups_of_version_one_and_paths_of_the_host() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "7:cpu:/x\n5:rdma,memory:/docker/123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n"),
        ];
        assert_eq!(memory_under(&Root::with("one", &files).0), Some(7_000));
    }

    #[test]
    fn this_machine_has_a_name() {
        assert!(!host_name().is_empty());
        assert!(!host_name().contains('\n'));
    }
}
