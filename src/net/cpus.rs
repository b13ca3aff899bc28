//! Processors: lists of them as the kernel writes them, and those that this process may use. Does not know what runs on
//! them.

/// Reads a list as in `0-3,8`, `None` if it is none. An empty one is a list too.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<usize>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        // No kernel knows more, and a damaged line must not fill the memory.
        if last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The most processors that a kernel can be built for.
const CPUS_MAX: usize = 8192;

/// Writes a sorted list as the kernel does: `0-3,8`.
#[must_use]
pub fn show(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|one, next| one + 1 == *next);
    let shown = runs.map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The list in a process's `/proc/PID/status`.
#[must_use]
pub fn in_status(status: &str) -> Option<Vec<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    parse(list).filter(|cpus| !cpus.is_empty())
}

/// The processors that this process may run on, in ascending order. Cores are pinned to them in this order.
#[must_use]
pub fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    in_status(&status).unwrap_or_else(|| (0..std::thread::available_parallelism().map_or(1, usize::from)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, cpus) in [
            ("", vec![]),
            ("0", vec![0]),
            ("0-3", vec![0, 1, 2, 3]),
            ("0-1,4,6-7", vec![0, 1, 4, 6, 7]),
            ("2,5,9", vec![2, 5, 9]),
        ] {
            assert_eq!(parse(text), Some(cpus.clone()), "{text}");
            assert_eq!(show(&cpus), text);
        }
        assert_eq!(parse(" 1-2\n"), Some(vec![1, 2]));
        for text in ["x", "1-", "-1", "1,,2", "0-99999999999", "18446744073709551616"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_status_file_has_a_list() {
        assert_eq!(in_status("Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n"), Some(vec![0, 1]));
        assert_eq!(in_status("Name:\tx\n"), None);
        assert!(!allowed().is_empty());
    }
}
