//! The scripts of `tuning/` change nothing unless told to, say what they would do, do that, and undo it: on a host
//! whose `/proc` and `/sys` are files in a folder.

mod common;

use common::host::FakeHost;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Every file of the host with its text, but for what the scripts remember.
fn snapshot(host: &FakeHost) -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, files: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, root, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    walk(&host.root(), &host.root(), &mut files);
    files.sort();
    files
}

#[track_caller]
fn contains(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn each_queue_gets_a_processor_and_gives_it_back() {
    let host = FakeHost::new();
    let before = snapshot(&host);
    let (code, plan) = host.run("tuning/irq-affinity.sh");
    assert_eq!(code, 0, "{plan}");
    contains(
        &plan,
        &[
            "eth0: 4 queue(s) for 4 processor(s), 0-3\n",
            "  /proc/irq/41/smp_affinity_list: 0-3 -> 0 (eth0-TxRx-0)\n",
            "  /proc/irq/44/smp_affinity_list: 0-3 -> 3 (eth0-TxRx-3)\n",
            "  /sys/class/net/eth0/queues/tx-3/xps_cpus: 0 -> 8\n",
            "Nothing was changed. Do it by: tuning/irq-affinity.sh --apply\n",
            "Then undo it by: tuning/irq-affinity.sh --undo\n",
        ],
    );
    for other in ["/40/", "/60/", "eth1", "lo:", "ethtool", "rps"] {
        assert!(!plan.contains(other), "{other}\n{plan}");
    }
    assert_eq!(snapshot(&host), before, "a plan changes nothing");

    let (code, done) = host.run("tuning/irq-affinity.sh --apply");
    assert_eq!(code, 0, "{done}");
    contains(&done, &["smp_affinity_list: 0-3 -> 3", "Undo it by: tuning/irq-affinity.sh --undo\n"]);
    assert_eq!(host.affinities(), ["0", "1", "2", "3"]);
    let xps = |queue: u32| host.read(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"));
    assert_eq!([0, 1, 2, 3].map(xps), ["1", "2", "4", "8"]);
    assert_eq!(host.read("proc/irq/40/smp_affinity_list"), "0-3", "what is no queue is left alone");

    let (code, again) = host.run("tuning/irq-affinity.sh --apply");
    assert_eq!(code, 0, "{again}");
    contains(&again, &["/proc/irq/44/smp_affinity_list = 3 already", "Nothing has to change.\n"]);
    // What was there before the first change counts, not what was there before the last.
    let (code, other) = host.run("tuning/irq-affinity.sh --cpus 2-3 --apply");
    assert_eq!((code, host.affinities()), (0, ["2", "3", "2", "3"].map(str::to_owned)), "{other}");

    let (code, undone) = host.run("tuning/irq-affinity.sh --undo");
    assert_eq!(code, 0, "{undone}");
    contains(&undone, &["  /proc/irq/41/smp_affinity_list: 0-3 again\n", "/tx-3/xps_cpus: 0 again\n"]);
    assert_eq!(snapshot(&host), before);
    let (code, nothing) = host.run("tuning/irq-affinity.sh --undo");
    assert_eq!(code, 0, "{nothing}");
    contains(&nothing, &["There is nothing to undo"]);
}

#[test]
fn few_queues_are_told_and_can_be_spread_by_software() {
    let host = FakeHost::new();
    host.write("sys/devices/system/cpu/online", "0-5");
    let (_, plan) = host.run("tuning/irq-affinity.sh --interface eth0");
    contains(&plan, &["Fewer queues than processors", "ethtool -L eth0 combined 6", "undo: combined 4"]);
    let (code, done) = host.run("tuning/irq-affinity.sh --rps --apply");
    assert_eq!(code, 0, "{done}");
    assert_eq!(host.read("sys/class/net/eth0/queues/rx-0/rps_cpus"), "3f");
    // The kernel shows a mask in another form than it was written in.
    host.write("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,0000003f");
    let (_, again) = host.run("tuning/irq-affinity.sh --rps");
    contains(&again, &["rx-0/rps_cpus = 3f already", "Nothing has to change."]);
    let (_, wide) = host.run("tuning/irq-affinity.sh --cpus 31-36 --rps");
    contains(&wide, &["rx-0/rps_cpus: 00000000,0000003f -> 1f,80000000", "tx-1/xps_cpus: 2 -> 1,00000000"]);
}

#[test]
fn what_the_kernel_refuses_or_lacks_stops_nothing_else() {
    let host = FakeHost::new();
    // One interrupt is the driver's own, one has no file.
    let refused = host.path("proc/irq/42/smp_affinity_list");
    fs::remove_file(&refused).unwrap();
    symlink("/proc/sys/kernel/osrelease", &refused).unwrap();
    fs::remove_dir_all(host.path("proc/irq/43")).unwrap();
    host.write("proc/77/comm", "irqbalance");
    let (code, done) = host.run("tuning/irq-affinity.sh --apply");
    assert_eq!(code, 1, "{done}");
    contains(
        &done,
        &[
            "the kernel does not take it: still ",
            "  /proc/irq/43/smp_affinity_list: this host has it not",
            "systemctl disable --now irqbalance     # undo: systemctl enable --now irqbalance",
        ],
    );
    assert_eq!(host.read("proc/irq/44/smp_affinity_list"), "3");

    // A virtual machine without any of it.
    let host = FakeHost::new();
    for path in ["sys/class/net", "sys/devices/system/cpu/cpu0", "sys/devices/system/cpu/cpu1"] {
        fs::remove_dir_all(host.path(path)).unwrap();
    }
    let (code, text) = host.run("tuning/irq-affinity.sh --apply");
    assert_eq!(code, 0, "{text}");
    contains(&text, &["There is no network card that is up.", "Nothing has to change."]);
    let (code, text) = host.run("tuning/governor.sh --cpus 0-1 --apply");
    assert_eq!(code, 0, "{text}");
    contains(&text, &["no frequency to set here", "Nothing has to change."]);
}

#[test]
fn governors_are_set_and_given_back() {
    let host = FakeHost::new();
    let before = snapshot(&host);
    let (code, plan) = host.run("tuning/governor.sh");
    assert_eq!(code, 0, "{plan}");
    contains(&plan, &["cpu3/cpufreq/scaling_governor: powersave -> performance\n", "Nothing was changed."]);
    assert_eq!(snapshot(&host), before);
    let (code, done) = host.run("tuning/governor.sh --cpus 1,3 --apply");
    assert_eq!(code, 0, "{done}");
    assert_eq!(host.governors(), ["powersave", "performance", "powersave", "performance"]);
    let (code, undone) = host.run("tuning/governor.sh --undo");
    assert_eq!(code, 0, "{undone}");
    assert_eq!(snapshot(&host), before);
    let (code, said) = host.run("tuning/governor.sh --governor fast");
    assert_eq!(code, 2, "{said}");
    contains(&said, &["knows no governor fast, but: performance powersave"]);
}

#[test]
fn processors_are_set_apart_and_given_back() {
    let host = FakeHost::new();
    let before = snapshot(&host);
    let line = "tuning/isolate-cpus.sh --cpus 2-3 --boot --nohz-full";
    let (code, plan) = host.run(line);
    assert_eq!(code, 0, "{plan}");
    contains(
        &plan,
        &["Processors 2-3 for roomcast, 0,1 for all else", "| AllowedCPUs=2-3", &format!("{line} --apply\n")],
    );
    assert_eq!(snapshot(&host), before);

    let (code, done) = host.run(&format!("{line} --apply"));
    assert_eq!(code, 0, "{done}");
    contains(&done, &["systemctl daemon-reload && systemctl restart roomcast", "update-grub && reboot"]);
    let units = "etc/systemd/system";
    for (file, setting) in [
        ("roomcast.slice", "[Slice]\nAllowedCPUs=2-3"),
        ("roomcast.service.d/50-cpus.conf", "[Service]\nSlice=roomcast.slice"),
        ("roomcast@.service.d/50-cpus.conf", "[Service]\nSlice=roomcast.slice"),
        ("system.slice.d/50-roomcast.conf", "[Slice]\nAllowedCPUs=0,1"),
        ("user.slice.d/50-roomcast.conf", "[Slice]\nAllowedCPUs=0,1"),
        ("init.scope.d/50-roomcast.conf", "[Scope]\nAllowedCPUs=0,1"),
    ] {
        assert!(host.read(&format!("{units}/{file}")).ends_with(setting), "{file}");
    }
    let grub = host.read("etc/default/grub.d/90-roomcast.cfg");
    contains(&grub, &["$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=domain,managed_irq,2-3 rcu_nocbs=2-3", "nohz_full=2-3\""]);

    let (code, again) = host.run(&format!("{line} --apply"));
    assert_eq!(code, 0, "{again}");
    contains(&again, &["roomcast.slice is there already", "Nothing has to change."]);
    let (code, undone) = host.run("tuning/isolate-cpus.sh --undo");
    assert_eq!(code, 0, "{undone}");
    contains(&undone, &["roomcast.slice: removed", "update-grub && reboot"]);
    assert_eq!(snapshot(&host), before);
    assert!(!host.path(&format!("{units}/user.slice.d")).exists(), "a folder goes with the file it was made for");

    // A file of the operator's own is not ours to change.
    host.write("etc/systemd/system/roomcast.slice", "[Slice]\nCPUWeight=500");
    let (code, said) = host.run("tuning/isolate-cpus.sh --cpus 2-3 --apply");
    assert_eq!(code, 1, "{said}");
    contains(&said, &["/etc/systemd/system/roomcast.slice is there and not from here"]);
    assert_eq!(host.read("etc/systemd/system/roomcast.slice"), "[Slice]\nCPUWeight=500");
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let host = FakeHost::new();
    let before = snapshot(&host);
    for (line, word) in [
        ("tuning/irq-affinity.sh --aply", "--aply"),
        ("tuning/irq-affinity.sh --cpus", "--cpus wants a value"),
        ("tuning/irq-affinity.sh --cpus all --apply", "all is no list"),
        ("tuning/irq-affinity.sh --cpus 1- --apply", "1- is no list"),
        ("tuning/irq-affinity.sh --interface eth9 --apply", "no interface eth9"),
        ("tuning/governor.sh now", "now"),
        ("tuning/isolate-cpus.sh --apply", "--cpus is missing"),
        ("tuning/isolate-cpus.sh --cpus 0-3 --apply", "leaves no processor"),
        ("tuning/isolate-cpus.sh --cpus 3-4 --apply", "processor 4 is not online"),
        ("tuning/isolate-cpus.sh --cpus 2 --nohz-full --apply", "--boot"),
    ] {
        let (code, said) = host.run(line);
        assert_eq!(code, 2, "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
    }
    assert_eq!(snapshot(&host), before);
    for script in ["irq-affinity", "governor", "isolate-cpus"] {
        let (code, said) = host.run(&format!("tuning/{script}.sh --help"));
        assert_eq!(code, 0, "{said}");
        contains(&said, &["--apply", "--undo", &format!("{script}.sh")]);
    }
}

#[test]
fn shellcheck_finds_nothing() {
    let mut shellcheck = Command::new("shellcheck");
    shellcheck.args(["-x", "tuning/lib.sh", "tuning/irq-affinity.sh", "tuning/governor.sh", "tuning/isolate-cpus.sh"]);
    let output = shellcheck.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap_or_else(|error| panic!("shellcheck: {error}; tests/run installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_file_stands_in_the_guide() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let guide = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || guide.contains(&format!("`{name}`")), "{name} is not in tuning/README.md");
    }
}
