//! What the kernel knows of a process: time on a CPU, memory, bytes written.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;

/// The kernel counts in hundredths of a second here, on every Linux of the last twenty years.
const TICKS_PER_SECOND: u64 = 100;
/// In `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// A process by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pid(pub(crate) u32);

/// What one process has used since it began, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    /// In user and kernel mode, all threads, also ended ones.
    pub(crate) cpu: Duration,
    /// Memory in use.
    pub(crate) resident_bytes: u64,
    /// The most it ever was.
    pub(crate) resident_peak_bytes: u64,
    /// Bytes of the page cache that were made to differ from the disk. On file systems with large folios the kernel
    /// counts a whole folio where a part was written, which can be a hundred times what reaches the disk.
    pub(crate) dirtied_bytes: u64,
    /// Calls of write and its kin, sockets included.
    pub(crate) write_calls: u64,
}

impl ProcessUsage {
    /// Reads the figures of a process.
    pub(crate) fn read(pid: Pid) -> Result<Self, Error> {
        let dir = Path::new("/proc").join(pid.0.to_string());
        let file = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))
        };
        let unreadable = || Error::Setting(format!("/proc/{} has a form that is not known", pid.0));
        let status = file("status")?;
        let io = file("io")?;
        Ok(Self {
            cpu: cpu(&file("stat")?).ok_or_else(unreadable)?,
            resident_bytes: field(&status, "VmRSS").ok_or_else(unreadable)? * 1024,
            resident_peak_bytes: field(&status, "VmHWM").ok_or_else(unreadable)? * 1024,
            dirtied_bytes: field(&io, "write_bytes").ok_or_else(unreadable)?,
            write_calls: field(&io, "syscw").ok_or_else(unreadable)?,
        })
    }
}

/// Lets the peak of a process's memory count from now on.
pub(crate) fn forget_peak(pid: Pid) -> Result<(), Error> {
    let path = Path::new("/proc").join(pid.0.to_string()).join("clear_refs");
    std::fs::write(&path, "5").map_err(Error::io(format!("write {}", path.display())))
}

/// utime and stime of `/proc/PID/stat`: fields 14 and 15, counted behind the name, which may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + kernel) * 1000 / TICKS_PER_SECOND))
}

/// The number behind `name:` in `/proc/PID/status` and `/proc/PID/io`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A disk, as the kernel's tables name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    major: u64,
    minor: u64,
}

impl Device {
    /// The device that a directory's file system lies on.
    pub(crate) fn of(directory: &Path) -> Result<Self, Error> {
        let action = || format!("look at {}", directory.display());
        let number = std::fs::metadata(directory).map_err(Error::io(action()))?.dev();
        Ok(Self { major: number >> 8 & 0xfff, minor: (number & 0xff) | (number >> 12 & 0xf_ff00) })
    }

    /// Bytes that were written to it since the machine started, by anybody; `None` where the file system is not on a
    /// device of its own.
    pub(crate) fn written_bytes(self) -> Option<u64> {
        self.find(&std::fs::read_to_string("/proc/diskstats").ok()?)
    }

    fn find(self, table: &str) -> Option<u64> {
        let numbers = |line: &str| -> Option<(u64, u64, u64)> {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            Some((fields.first()?.parse().ok()?, fields.get(1)?.parse().ok()?, fields.get(9)?.parse().ok()?))
        };
        let mine = |(major, minor, _): &(u64, u64, u64)| (*major, *minor) == (self.major, self.minor);
        table.lines().filter_map(numbers).find(mine).map(|(.., sectors)| sectors * SECTOR_BYTES)
    }
}

/// Time all CPUs together were not idle since the machine started, by anybody, stolen time included.
pub(crate) fn machine_busy() -> Option<Duration> {
    busy(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// user, nice, system, irq, softirq and steal of the first line; idle and iowait left out.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some(Duration::from_millis((user + nice + system + irq + softirq + steal) * 1000 / TICKS_PER_SECOND))
}

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory_gib = field(&read("/proc/meminfo"), "MemTotal").unwrap_or(0) / 1024 / 1024;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, {memory_gib} GiB, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_mislead() {
        let stat = "7 (a) R 1 (b)) S 1 7 7 0 -1 4194560 5 0 0 0 250 75 9 9 20 0 1 0 100 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_millis(3250)));
        assert_eq!(cpu("7 (a) S 1"), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let io = "rchar: 1\nwchar: 2\nsyscw: 3\nread_bytes: 4\nwrite_bytes: 5\ncancelled_write_bytes: 6\n";
        assert_eq!(field(io, "write_bytes"), Some(5));
        assert_eq!(field(io, "syscw"), Some(3));
        assert_eq!(field("VmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS"), Some(1024));
        assert_eq!(field(io, "write"), None);
    }

    #[test]
    fn a_disk_is_found_by_its_numbers() {
        let table = " 254 0 vda 1 2 3 4 5 6 700 8 9 0 1\n 254 1 vda1 1 2 3 4 5 6 70 8 9 0 1\n";
        assert_eq!(Device { major: 254, minor: 1 }.find(table), Some(70 * 512));
        assert_eq!(Device { major: 254, minor: 2 }.find(table), None);
        assert!(Device::of(Path::new("/")).is_ok());
    }

    #[test]
    fn a_machine_is_busy_when_it_neither_idles_nor_waits() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy(stat), Some(Duration::from_millis(1710)));
        assert_eq!(busy("cpu  1 2\n"), None);
        assert!(machine_busy().is_some());
    }

    #[test]
    fn our_own_figures_are_there_and_grow() {
        let before = ProcessUsage::read(Pid(std::process::id())).unwrap();
        assert!(before.resident_bytes > 0 && before.resident_peak_bytes >= before.resident_bytes);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while ProcessUsage::read(Pid(std::process::id())).unwrap().cpu <= before.cpu {
            assert!(std::time::Instant::now() < deadline, "a busy process uses no CPU");
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(ProcessUsage::read(Pid(u32::MAX)).is_err());
        assert!(machine().contains("cores"));
    }
}
