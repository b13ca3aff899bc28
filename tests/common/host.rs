//! A host's `/proc` and `/sys` in a folder: four processors, a network card of four queues, and nothing tuned.

use super::TempDir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder; it goes with the value.
pub struct FakeHost(TempDir);

/// The first interrupt of a queue; the one before it is the card's own.
pub const FIRST_QUEUE: u32 = 41;

impl FakeHost {
    #[allow(clippy::new_without_default)]
    pub fn new() -> FakeHost {
        let host = FakeHost(TempDir::new());
        let mut interrupts = "           CPU0       CPU1       CPU2       CPU3\n".to_owned();
        let line = |number: u32, name: &str| {
            format!(
                "{number:>3}:          1          0          0          0 PCI-MSIX-0000:01:00.0 1-edge      {name}\n"
            )
        };
        interrupts += &line(1, "i8042");
        interrupts += &line(FIRST_QUEUE - 1, "eth0");
        host.write("proc/irq/40/smp_affinity_list", "0-3");
        host.write("sys/class/net/eth0/operstate", "up");
        host.write("sys/class/net/eth0/device/msi_irqs/40", "msix");
        for queue in 0..4 {
            let interrupt = FIRST_QUEUE + queue;
            interrupts += &line(interrupt, &format!("eth0-TxRx-{queue}"));
            host.write(&format!("proc/irq/{interrupt}/smp_affinity_list"), "0-3");
            host.write(&format!("sys/class/net/eth0/device/msi_irqs/{interrupt}"), "msix");
            host.write(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0");
            host.write(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "0");
            let cpufreq = format!("sys/devices/system/cpu/cpu{queue}/cpufreq");
            host.write(&format!("{cpufreq}/scaling_governor"), "powersave");
            host.write(&format!("{cpufreq}/scaling_available_governors"), "performance powersave");
        }
        interrupts += &line(60, "nvme0q1");
        interrupts += "LOC:     123012     157497     123012     157497   Local timer interrupts\n";
        host.write("proc/interrupts", &interrupts);
        // These have no device behind them, or are not in use.
        host.write("sys/class/net/lo/operstate", "unknown");
        host.write("sys/class/net/eth1/operstate", "down");
        host.write("sys/class/net/eth1/device/msi_irqs/60", "msix");
        host.write("sys/devices/system/cpu/online", "0-3");
        host.write("proc/self/status", "Name:\tcat\nTHP_enabled:\t0\nCpus_allowed_list:\t0-3\n");
        host
    }

    pub fn root(&self) -> PathBuf {
        self.0.path("")
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.0.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path(path)).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    }

    /// The processors of the queues' interrupts, as lists.
    pub fn affinities(&self) -> [String; 4] {
        [0, 1, 2, 3].map(|queue| self.read(&format!("proc/irq/{}/smp_affinity_list", FIRST_QUEUE + queue)))
    }

    pub fn governors(&self) -> [String; 4] {
        [0, 1, 2, 3].map(|cpu| self.read(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")))
    }

    /// A shell's command line, which begins with one of the scripts in `tuning/`: its exit code and what it says.
    #[track_caller]
    pub fn run(&self, line: &str) -> (i32, String) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} 2>&1")]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        let output =
            shell.env("TUNING_ROOT", self.0.path("").to_str().unwrap().trim_end_matches('/')).output().unwrap();
        (output.status.code().expect("it was not killed"), String::from_utf8(output.stdout).unwrap())
    }
}
